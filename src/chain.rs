//! An error and what led to it, in words.

use std::error::Error;

/// An error and its sources as one line, outermost first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut said = Vec::new();
    add(&mut said, error);
    said.join(": ")
}

/// Adds what an error and its sources say, one line each and outermost first, unless it was `said`
/// before: libraries repeat their source's text.
pub fn add(said: &mut Vec<String>, error: &dyn Error) {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let line = lines.join("; ");
        if !line.is_empty() && !said.iter().any(|s| s.contains(&line)) {
            said.push(line);
        }
        next = error.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Said {
        text: &'static str,
        source: Option<Box<Said>>,
    }

    fn said(texts: &[&'static str]) -> Said {
        let (text, rest) = texts.split_first().unwrap();
        let source = (!rest.is_empty()).then(|| Box::new(said(rest)));
        Said { text, source }
    }

    #[test]
    fn each_cause_is_one_line_and_said_once() {
        let error =
            said(&["cannot read x: denied", "denied", " two\n\n lines ", "two", "", "last"]);
        assert_eq!(chain(&error), "cannot read x: denied: two; lines: last");
        let mut before = vec!["the last word".to_owned()];
        add(&mut before, &error);
        assert_eq!(before, ["the last word", "cannot read x: denied", "two; lines"]);
    }
}
