//! One change of the user's text at a time, by the byte ranges of its nodes.

use std::ops::Range;

use zeroize::Zeroizing;

use crate::config::generate::{IDENTITY_READS, IDENTITY_WRITES, encode, quoted, scalar};
use crate::config::model::Key;
use crate::envelope::Provider;
use crate::yaml_tree::{self, Node};

/// A change of one list. Indices are those at the moment when it is applied.
pub(super) enum Edit {
    /// A key goes to the end of an element's keys.
    AddKey { entry: usize, element: usize, key: Key },
    /// A new element with one key, before another or last.
    AddProvider { entry: usize, before: Option<usize>, provider: Provider, key: Key },
    /// A key comes first in its element.
    FirstKey { entry: usize, element: usize, key: usize },
    /// An element comes first in its entry.
    FirstProvider { entry: usize, element: usize },
    /// A key goes.
    RemoveKey { entry: usize, element: usize, key: usize },
    /// An element goes.
    RemoveProvider { entry: usize, element: usize },
}

impl Edit {
    pub(super) fn entry(&self) -> usize {
        match self {
            Self::AddKey { entry, .. }
            | Self::AddProvider { entry, .. }
            | Self::FirstKey { entry, .. }
            | Self::FirstProvider { entry, .. }
            | Self::RemoveKey { entry, .. }
            | Self::RemoveProvider { entry, .. } => *entry,
        }
    }
}

/// Applies the changes one after the other. The error says why the text cannot be edited; that
/// the result means what it should is for the caller to check.
pub(super) fn edit(text: &str, edits: &[Edit]) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(text.to_owned());
    for change in edits {
        text = apply(&text, change)?;
    }
    Ok(text)
}

fn apply(text: &str, change: &Edit) -> Result<Zeroizing<String>, String> {
    let documents = yaml_tree::parse(text).map_err(|e| e.message)?;
    let document = documents.first().ok_or("the file is empty")?;
    let providers = step(document, "resources")
        .and_then(|n| item(n, change.entry()))
        .and_then(|n| step(n, "providers"))?;
    let keys = |element: usize| -> Result<&Node, String> {
        let element = item(providers, element)?;
        let set = ["aescbc", "aesgcm", "secretbox"];
        let provider = set.iter().find_map(|p| step(element, p).ok());
        step(provider.ok_or("the element has no keys")?, "keys")
    };
    match change {
        Edit::AddKey { element, key, .. } => {
            let list = List::of(text, keys(*element)?)?;
            Ok(list.insert(None, &new_key(key, &list)))
        }
        Edit::AddProvider { before, provider, key, .. } => {
            let list = List::of(text, providers)?;
            Ok(list.insert(*before, &new_provider(*provider, key, &list)))
        }
        Edit::FirstKey { element, key, .. } => {
            Ok(List::of(text, keys(*element)?)?.move_to_front(*key))
        }
        Edit::FirstProvider { element, .. } => {
            let moved = List::of(text, providers)?.move_to_front(*element);
            remarks(&moved, change.entry())
        }
        Edit::RemoveKey { element, key, .. } => List::of(text, keys(*element)?)?.remove(*key),
        Edit::RemoveProvider { element, .. } => List::of(text, providers)?.remove(*element),
    }
}

/// Has our own remark over each identity provider of an entry say what it does now.
fn remarks(text: &str, entry: usize) -> Result<Zeroizing<String>, String> {
    let documents = yaml_tree::parse(text).map_err(|e| e.message)?;
    let document = documents.first().ok_or("the file is empty")?;
    let providers = step(document, "resources")
        .and_then(|n| item(n, entry))
        .and_then(|n| step(n, "providers"))?;
    let mut out = Zeroizing::new(text.to_owned());
    let Some(block) = List::of(text, providers)?.block else { return Ok(out) };
    // From the back, so that earlier places stay true.
    for (i, line) in block.lines.iter().enumerate().rev() {
        if let Some((at, remark)) = remark_above(text, *line) {
            let right = if i == 0 { IDENTITY_WRITES } else { IDENTITY_READS };
            out = splice(&out, at..at + remark.len(), right);
        }
    }
    Ok(out)
}

/// Our own remark in the line above the one that begins at `line`, and where it begins.
fn remark_above(text: &str, line: usize) -> Option<(usize, &'static str)> {
    let above = text[..line].trim_end_matches(['\r', '\n']);
    let start = above.rfind('\n').map_or(0, |n| n + 1);
    let remark = [IDENTITY_READS, IDENTITY_WRITES].into_iter();
    let found = remark.into_iter().find(|r| above[start..].trim() == *r)?;
    Some((start + above[start..].find('#')?, found))
}

/// What came in through an alias has its text elsewhere, and changing that would change more.
fn own(node: &Node) -> Result<&Node, String> {
    if node.aliased {
        return Err("the file uses YAML aliases for what has to change: write it out".to_owned());
    }
    Ok(node)
}

fn step<'n>(node: &'n Node, name: &str) -> Result<&'n Node, String> {
    own(node.get(name).ok_or_else(|| format!("there is no `{name}`"))?)
}

fn item(node: &Node, index: usize) -> Result<&Node, String> {
    own(node.items().get(index).ok_or("the list is too short")?)
}

/// A list in the text.
struct List<'t> {
    text: &'t str,
    items: Vec<Range<usize>>,
    /// Block style only.
    block: Option<Block>,
    /// Ends of line as the file has them.
    newline: &'static str,
}

/// Where the lines of a block list are.
struct Block {
    /// Column of the dashes, from 0.
    indent: usize,
    /// First byte of each item's first line, its own comment lines above included.
    chunks: Vec<usize>,
    /// First byte of the line with each item's dash.
    lines: Vec<usize>,
    /// End of each item's last line, line break included.
    ends: Vec<usize>,
}

impl<'t> List<'t> {
    fn of(text: &'t str, node: &Node) -> Result<Self, String> {
        let items: Vec<_> = node.items().iter().map(|n| n.span.clone()).collect();
        if items.is_empty() {
            return Err("the list is empty".to_owned());
        }
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let block = if node.flow { None } else { Some(Block::of(text, &items)?) };
        Ok(Self { text, items, block, newline })
    }

    /// Adds an item before another one, or last.
    fn insert(&self, before: Option<usize>, item: &str) -> Zeroizing<String> {
        let text = self.text;
        match (&self.block, before) {
            (Some(block), Some(i)) => splice(text, block.chunks[i]..block.chunks[i], item),
            (Some(block), None) => {
                let end = block.ends.last().copied().unwrap_or(text.len());
                // The file may end without a line break.
                let gap = if text[..end].ends_with('\n') { "" } else { self.newline };
                let joined = Zeroizing::new(format!("{gap}{item}"));
                splice(text, end..end, &joined)
            }
            (None, Some(i)) => {
                let joined = Zeroizing::new(format!("{item}{}", self.separator()));
                splice(text, self.items[i].start..self.items[i].start, &joined)
            }
            (None, None) => {
                let end = self.items[self.items.len() - 1].end;
                let joined = Zeroizing::new(format!("{}{item}", self.separator()));
                splice(text, end..end, &joined)
            }
        }
    }

    fn move_to_front(&self, index: usize) -> Zeroizing<String> {
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        let moved = order.remove(index);
        order.insert(0, moved);
        let mut out = Zeroizing::new(String::with_capacity(self.text.len() + 2));
        if let Some(block) = &self.block {
            let end = block.ends[block.ends.len() - 1];
            let chunk = |i: usize| {
                let next = block.chunks.get(i + 1).copied().unwrap_or(end);
                &self.text[block.chunks[i]..next]
            };
            out.push_str(&self.text[..block.chunks[0]]);
            for i in order {
                out.push_str(chunk(i));
                if !out.ends_with('\n') {
                    out.push_str(self.newline);
                }
            }
            out.push_str(&self.text[end..]);
        } else {
            // Items change their slots; what stands between them stays.
            let mut at = 0;
            for (slot, from) in self.items.iter().zip(order) {
                out.push_str(&self.text[at..slot.start]);
                out.push_str(&self.text[self.items[from].clone()]);
                at = slot.end;
            }
            out.push_str(&self.text[at..]);
        }
        out
    }

    /// Comment lines above the item stay: they may be about the whole list. Our own remark goes
    /// with what it is about.
    fn remove(&self, index: usize) -> Result<Zeroizing<String>, String> {
        if self.items.len() < 2 {
            return Err("nothing would be left".to_owned());
        }
        let range = match &self.block {
            Some(block) => {
                let line = block.lines[index];
                let start = match remark_above(self.text, line) {
                    Some((at, _)) => self.text[..at].rfind('\n').map_or(0, |n| n + 1),
                    None => line,
                };
                start..block.ends[index]
            }
            None if index == 0 => self.items[0].start..self.items[1].start,
            None => self.items[index - 1].end..self.items[index].end,
        };
        Ok(splice(self.text, range, ""))
    }

    /// What stands between the items of a flow list.
    fn separator(&self) -> &str {
        let between = match self.items.as_slice() {
            [.., a, b] => &self.text[a.end..b.start],
            _ if self.compact() => ",",
            _ => ", ",
        };
        if between.contains('#') { ", " } else { between }
    }

    /// JSON on one line, as programs write it.
    fn compact(&self) -> bool {
        self.text.trim_start().starts_with('{') && !self.text.trim().contains('\n')
    }
}

impl Block {
    fn of(text: &str, items: &[Range<usize>]) -> Result<Self, String> {
        let strange = || "a list in the file has an unusual layout".to_owned();
        let mut block = Self { indent: 0, chunks: Vec::new(), lines: Vec::new(), ends: Vec::new() };
        let mut floor = 0;
        for (i, item) in items.iter().enumerate() {
            let before = text[..item.start].trim_end_matches([' ', '\t', '\r', '\n']);
            let dash = before.strip_suffix('-').ok_or_else(strange)?.len();
            let line = text[..dash].rfind('\n').map_or(0, |n| n + 1);
            let indent = dash - line;
            if !text[line..dash].bytes().all(|b| b == b' ') || line < floor {
                return Err(strange());
            }
            if i == 0 {
                block.indent = indent;
            }
            let last_line = text[..item.end].rfind('\n').map_or(0, |n| n + 1);
            let end = if last_line > item.start && text[last_line..item.end].trim().is_empty() {
                // A block scalar ends with its line break, before the next node's indentation.
                last_line
            } else {
                let rest = &text[item.end..];
                let line_end = rest.find('\n').map_or(rest.len(), |n| n + 1);
                let tail = rest[..line_end].trim();
                if !tail.is_empty() && !tail.starts_with('#') {
                    return Err(strange());
                }
                item.end + line_end
            };
            let mut chunk = line;
            while chunk > floor {
                let previous = text[..chunk - 1].rfind('\n').map_or(0, |n| n + 1);
                if previous < floor || !text[previous..chunk].trim_start().starts_with('#') {
                    break;
                }
                chunk = previous;
            }
            block.chunks.push(chunk);
            block.lines.push(line);
            block.ends.push(end);
            floor = end;
        }
        Ok(block)
    }
}

fn splice(text: &str, range: Range<usize>, with: &str) -> Zeroizing<String> {
    let mut out = String::with_capacity(text.len() + with.len());
    out.push_str(&text[..range.start]);
    out.push_str(with);
    out.push_str(&text[range.end..]);
    Zeroizing::new(out)
}

fn new_key(key: &Key, list: &List<'_>) -> Zeroizing<String> {
    let secret = encode(&key.secret);
    Zeroizing::new(match &list.block {
        Some(block) => {
            let (pad, nl) = (" ".repeat(block.indent), list.newline);
            format!("{pad}- name: {}{nl}{pad}  secret: {}{nl}", scalar(&key.name), *secret)
        }
        None => flow_key(key, &secret, list),
    })
}

fn flow_key(key: &Key, secret: &str, list: &List<'_>) -> String {
    let name = quoted(&key.name);
    if list.compact() {
        format!("{{\"name\":{name},\"secret\":\"{secret}\"}}")
    } else {
        format!("{{\"name\": {name}, \"secret\": \"{secret}\"}}")
    }
}

fn new_provider(provider: Provider, key: &Key, list: &List<'_>) -> Zeroizing<String> {
    let secret = encode(&key.secret);
    if let Some(block) = &list.block {
        let (pad, nl) = (" ".repeat(block.indent), list.newline);
        return Zeroizing::new(format!(
            "{pad}- {provider}:{nl}{pad}    keys:{nl}{pad}      - name: {}{nl}{pad}        secret: {}{nl}",
            scalar(&key.name),
            *secret
        ));
    }
    let key = flow_key(key, &secret, list);
    Zeroizing::new(if list.compact() {
        format!("{{\"{provider}\":{{\"keys\":[{key}]}}}}")
    } else {
        format!("{{\"{provider}\": {{\"keys\": [{key}]}}}}")
    })
}
