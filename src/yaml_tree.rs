//! YAML or JSON text → a tree that remembers where everything stands.
//!
//! Every error about a configuration needs a line and a column, and a key rotation edits the
//! user's own text, so the parser's events are kept with their byte ranges. Scalars are resolved
//! as the API server's YAML reader resolves them (sigs.k8s.io/yaml `goyaml.v2/resolve.go`), not
//! as YAML 1.2 says: `yes` is a boolean there, and `010` is eight.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};
use zeroize::Zeroizing;

/// Deepest nesting that is read. A configuration needs seven levels.
const MAX_DEPTH: usize = 64;
/// Most nodes that aliases may expand to. It stops "billion laughs" documents.
const MAX_NODES: usize = 1 << 16;
/// Most bytes of text in all nodes, those that aliases stand for included.
const MAX_BYTES: usize = 32 << 20;
/// Most items of a list and fields of an object: they are compared with one another.
const MAX_ITEMS: usize = 4096;

/// Where something stands: line and column count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A node and where it stands.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Position,
    /// Byte range in the text; block collections end where their last child does.
    pub(crate) span: Range<usize>,
    /// Written in `[…]` or `{…}`.
    #[allow(dead_code)] // the rotation looks at it
    pub(crate) flow: bool,
    /// Came in through an alias or a merge key: its text stands elsewhere.
    pub(crate) aliased: bool,
}

/// What a node is. No `Debug`: scalars may be key secrets.
#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(Zeroizing<String>),
    List(Vec<Node>),
    Map(Vec<Field>),
}

impl Value {
    /// The kind in words, for "is a … where a … is needed".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

/// One key of a map with its value.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: Zeroizing<String>,
    pub(crate) at: Position,
    pub(crate) node: Node,
}

impl Node {
    /// The value of a map's key, the first where it is repeated.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(fields) => fields.iter().find(|f| f.name.as_str() == name).map(|f| &f.node),
            _ => None,
        }
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }
}

/// Why a text is no YAML or JSON. Its message never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) at: Option<Position>,
}

/// Reads every document. `Ok(vec![])` is a text without any node (empty, or comments only).
///
/// The API server hands a text whose first character is `{` to its JSON reader and everything
/// else to its YAML reader (apimachinery `pkg/runtime/serializer/json/json.go`).
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let json = text.trim_start().starts_with('{');
    if json {
        check_json(text)?;
    }
    let mut builder = Builder { anchors: HashMap::new(), nodes: 0, bytes: 0, json, closed: 0 };
    let mut documents = Vec::new();
    let mut events = Parser::new_from_str(text);
    while let Some(next) = events.next_event() {
        match next {
            Ok((Event::DocumentStart(..), _)) => match builder.next_node(&mut events, 0) {
                Ok(Some(node)) => documents.push(node),
                Ok(None) => {}
                // Only the first document counts; what follows is reported, not understood.
                Err(_) if !documents.is_empty() => {
                    documents.push(Node::null());
                    break;
                }
                Err(e) => return Err(e),
            },
            Ok(_) => {}
            Err(_) if !documents.is_empty() => {
                documents.push(Node::null());
                break;
            }
            Err(e) => return Err(scan_error(&e)),
        }
    }
    Ok(documents)
}

fn check_json(text: &str) -> Result<(), SyntaxError> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(e) => {
            // The message of a syntax error names what was expected, never what was there.
            let full = e.to_string();
            let message = full.split(" at line ").next().unwrap_or(&full).to_owned();
            Err(SyntaxError {
                message: format!("not valid JSON: {message}"),
                at: Some(Position { line: e.line(), column: e.column().max(1) }),
            })
        }
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn scan_error(e: &ScanError) -> SyntaxError {
    let at = e.marker();
    SyntaxError {
        // Kinds are fixed sentences; at most they name one punctuation character.
        message: format!("not valid YAML: {}", e.kind()),
        at: Some(Position { line: at.line(), column: at.col() + 1 }),
    }
}

fn error(message: &str, span: Span) -> SyntaxError {
    SyntaxError { message: message.to_owned(), at: Some(position(span)) }
}

type Events<'t> = Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>;

struct Builder {
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
    json: bool,
    /// Where the collection that was read last closes; meaningful for flow style only.
    closed: usize,
}

impl Node {
    fn null() -> Self {
        Self {
            value: Value::Null,
            at: Position::default(),
            span: 0..0,
            flow: false,
            aliased: false,
        }
    }

    /// Nodes, and bytes of text in them.
    fn count(&self) -> (usize, usize) {
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        match &self.value {
            Value::Text(text) => (1, text.len()),
            Value::List(items) => items.iter().map(Self::count).fold((1, 0), add),
            Value::Map(fields) => {
                let fields = fields.iter().map(|f| add(f.node.count(), (0, f.name.len())));
                fields.fold((1, 0), add)
            }
            _ => (1, 0),
        }
    }
}

impl Builder {
    /// The next node; `None` at the end of the enclosing collection or document.
    fn next_node(
        &mut self,
        events: &mut Events<'_>,
        depth: usize,
    ) -> Result<Option<Node>, SyntaxError> {
        loop {
            let Some(next) = events.next_event() else { return Ok(None) };
            let (event, span) = next.map_err(|e| scan_error(&e))?;
            if depth > MAX_DEPTH {
                return Err(error("nested too deeply", span));
            }
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(error("too many nodes", span));
            }
            let (value, anchor) = match event {
                Event::Comment(..) => continue,
                Event::Scalar(text, style, anchor, tag) => {
                    self.grow((0, text.len()), span)?;
                    let tag = tag.as_deref().and_then(|t| t.core_suffix().map(str::to_owned));
                    let plain = style == ScalarStyle::Plain;
                    (scalar(&text, plain, tag.as_deref()), anchor)
                }
                Event::SequenceStart(style, anchor, _) => {
                    let mut items = Vec::new();
                    while let Some(item) = self.next_node(events, depth + 1)? {
                        items.push(item);
                        if items.len() > MAX_ITEMS {
                            return Err(error("a list of too many items", span));
                        }
                    }
                    let last = items.last().map(|n: &Node| n.span.end);
                    let node = self.collection(style, span, last, Value::List(items));
                    return self.keep(anchor, node, span).map(Some);
                }
                Event::MappingStart(style, anchor, _) => {
                    let (fields, last) = self.fields(events, depth)?;
                    let node = self.collection(style, span, last, Value::Map(fields));
                    return self.keep(anchor, node, span).map(Some);
                }
                Event::Alias(id) => {
                    let Some(target) = self.anchors.get(&id) else {
                        return Err(error("an alias refers to a node that contains it", span));
                    };
                    let size = target.count();
                    self.grow(size, span)?;
                    let Some(target) = self.anchors.get(&id) else { return Ok(None) };
                    let mut node = target.clone();
                    node.aliased = true;
                    return Ok(Some(node));
                }
                _ => {
                    self.closed = span.byte_range().map_or(0, |r| r.end);
                    return Ok(None);
                }
            };
            let node = Node {
                value,
                at: position(span),
                span: span.byte_range().unwrap_or(0..0),
                flow: false,
                aliased: false,
            };
            return self.keep(anchor, node, span).map(Some);
        }
    }

    /// Notes that so many nodes and bytes more are held.
    fn grow(&mut self, (nodes, bytes): (usize, usize), span: Span) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES {
            return Err(error("aliases expand to too many nodes or bytes", span));
        }
        Ok(())
    }

    fn collection(
        &self,
        style: StructureStyle,
        span: Span,
        last: Option<usize>,
        value: Value,
    ) -> Node {
        let start = span.start.byte_offset().unwrap_or(0);
        let flow = style == StructureStyle::Flow;
        let end = if flow { self.closed } else { last.unwrap_or(start) };
        Node { value, at: position(span), span: start..end, flow, aliased: false }
    }

    /// The fields of a map and where the last one ends.
    fn fields(
        &mut self,
        events: &mut Events<'_>,
        depth: usize,
    ) -> Result<(Vec<Field>, Option<usize>), SyntaxError> {
        let mut end = None;
        let mut fields: Vec<Field> = Vec::new();
        let mut merged: Vec<Field> = Vec::new();
        while let Some(key) = self.next_node(events, depth + 1)? {
            let name = match &key.value {
                Value::Text(text) => text.clone(),
                // The API server turns other scalars into strings; which one does not matter,
                // since none of them is a field's name.
                Value::Null => Zeroizing::new("null".to_owned()),
                Value::Bool(b) => Zeroizing::new(b.to_string()),
                Value::Int(i) => Zeroizing::new(i.to_string()),
                Value::Float => Zeroizing::new("number".to_owned()),
                Value::List(_) | Value::Map(_) => {
                    return Err(SyntaxError {
                        message: "a list or an object cannot be a key".to_owned(),
                        at: Some(key.at),
                    });
                }
            };
            let Some(node) = self.next_node(events, depth + 1)? else { break };
            end = Some(if node.aliased { key.span.end } else { node.span.end.max(key.span.end) });
            if fields.len() + merged.len() > MAX_ITEMS {
                return Err(SyntaxError {
                    message: "an object of too many fields".to_owned(),
                    at: Some(key.at),
                });
            }
            if name.as_str() == "<<" && !self.json {
                merge(&mut merged, node)?;
            } else {
                fields.push(Field { name, at: key.at, node });
            }
        }
        for field in merged {
            if !fields.iter().any(|f| f.name == field.name) {
                fields.push(field);
            }
        }
        Ok((fields, end))
    }

    /// What an anchor names is held twice.
    fn keep(&mut self, anchor: usize, node: Node, span: Span) -> Result<Node, SyntaxError> {
        if anchor != 0 {
            self.grow(node.count(), span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

/// A YAML 1.1 merge key: a map or a list of maps, whose fields count unless they are set.
fn merge(into: &mut Vec<Field>, node: Node) -> Result<(), SyntaxError> {
    let at = Some(node.at);
    let wrong = || SyntaxError { message: "a merge key needs an object".to_owned(), at };
    match node.value {
        Value::Map(fields) => {
            for mut field in fields {
                if !into.iter().any(|f| f.name == field.name) {
                    field.node.aliased = true;
                    into.push(field);
                }
            }
            Ok(())
        }
        Value::List(items) => {
            for item in items {
                if !matches!(item.value, Value::Map(_)) {
                    return Err(wrong());
                }
                merge(into, item)?;
            }
            Ok(())
        }
        _ => Err(wrong()),
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&str>) -> Value {
    match tag {
        Some("str") => Value::Text(Zeroizing::new(text.to_owned())),
        Some(_) => resolve(text),
        None if plain => resolve(text),
        None => Value::Text(Zeroizing::new(text.to_owned())),
    }
}

/// Resolves a plain scalar (sigs.k8s.io/yaml `goyaml.v2/resolve.go`).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Value::Float,
        _ => {}
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        let digits: String = text.chars().filter(|c| *c != '_').collect();
        if let Some(int) = integer(&digits) {
            return Value::Int(int);
        }
        if is_float(&digits) {
            return Value::Float;
        }
    }
    Value::Text(Zeroizing::new(text.to_owned()))
}

/// Go's `strconv.ParseInt(text, 0, 64)`, and unsigned 64-bit numbers.
fn integer(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, radix) = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&rest[2..], 16),
        [b'0', b'b' | b'B', ..] => (&rest[2..], 2),
        [b'0', b'o' | b'O', ..] => (&rest[2..], 8),
        [b'0', _, ..] => (&rest[1..], 8),
        _ => (rest, 10),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -value } else { value };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_float(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(i) => (&rest[..i], Some(&rest[i + 1..])),
        None => (rest, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_ok =
        digits(whole) && digits(fraction) && (!whole.is_empty() || !fraction.is_empty());
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        parse(&format!("a: {text}\n")).unwrap()[0].get("a").unwrap().value.kind()
    }

    #[test]
    fn plain_scalars_resolve_as_in_go() {
        for (text, expected) in [
            ("", "null"),
            ("~", "null"),
            ("yes", "a boolean"),
            ("off", "a boolean"),
            ("1", "a number"),
            ("010", "a number"),
            ("08", "a number"),
            ("0x1F", "a number"),
            ("1_000", "a number"),
            ("1e3", "a number"),
            (".5", "a number"),
            ("-.inf", "a number"),
            ("3s", "a string"),
            ("1.2.3", "a string"),
            ("'1'", "a string"),
            ("\"yes\"", "a string"),
            ("!!str 1", "a string"),
            ("2001-01-01", "a string"),
            ("[]", "a list"),
            ("{}", "an object"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert!(matches!(resolve("010"), Value::Int(8)));
        assert!(matches!(resolve("-0x10"), Value::Int(-16)));
    }

    #[test]
    fn json_may_be_indented_with_tabs_and_must_be_json() {
        let tabs = "{\n\t\"a\": [\n\t\t\"b\",\n\t\t\"c\"\n\t],\n\t\"d\": {\n\t\t\"e\": \"\\u00e9\\/\"\n\t}\n}\n";
        let doc = &parse(tabs).unwrap()[0];
        assert_eq!(doc.get("a").unwrap().items()[1].text(), Some("c"));
        assert_eq!(doc.get("d").unwrap().get("e").unwrap().text(), Some("é/"));
        assert_eq!(doc.get("d").unwrap().get("e").unwrap().at, Position { line: 7, column: 8 });
        for bad in ["{a: b}", "{\"a\": 1,}", "{\"a\": 1} x", "{\"a\": 'b'}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aliases_and_merge_keys_expand_within_bounds() {
        let doc = &parse("a: &x {k: v}\nb: *x\nc: {<<: *x, l: w}\n").unwrap()[0];
        assert_eq!(doc.get("b").unwrap().get("k").unwrap().text(), Some("v"));
        assert_eq!(doc.get("c").unwrap().get("k").unwrap().text(), Some("v"));
        assert_eq!(doc.get("c").unwrap().get("l").unwrap().text(), Some("w"));
        let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            use std::fmt::Write as _;
            let items = vec![format!("*a{}", i - 1); 10].join(",");
            writeln!(laughs, "a{i}: &a{i} [{items}]").unwrap();
        }
        assert!(parse(&laughs).err().unwrap().message.contains("too many nodes"));
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(&deep).err().unwrap().message.contains("deeply"));
        assert!(parse("&a [*a]").is_err());
    }

    #[test]
    fn nodes_know_their_bytes() {
        let text = "a:\n  - {b: [1, 2 ] , c: 'x'}  # no\n  - d: \"é\"\n    e: f # g\n";
        let doc = &parse(text).unwrap()[0];
        let items = doc.get("a").unwrap().items();
        assert_eq!(&text[items[0].span.clone()], "{b: [1, 2 ] , c: 'x'}");
        assert_eq!(&text[items[0].get("b").unwrap().span.clone()], "[1, 2 ]");
        assert_eq!(&text[items[0].get("c").unwrap().span.clone()], "'x'");
        assert_eq!(&text[items[1].span.clone()], "d: \"é\"\n    e: f");
        assert!(items[0].flow && !items[1].flow);
    }

    #[test]
    fn later_documents_are_counted_not_understood() {
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap().len(), 2);
        assert_eq!(parse("a: 1\n---\n]\n").unwrap().len(), 2);
        assert_eq!(parse("# nothing\n").unwrap().len(), 0);
        assert_eq!(parse("").unwrap().len(), 0);
        assert_eq!(parse("\u{feff}a: 1\n").unwrap().len(), 1);
    }
}
