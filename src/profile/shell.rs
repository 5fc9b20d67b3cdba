//! A shell's line as a shell takes it apart (POSIX "Shell Command Language", 2.2 and 2.3): quotes,
//! escapes, comments, line continuations, redirections. Nothing is run or expanded but the
//! parameters that are known.

/// The simple commands of a script, each as its words. `known` has the values of parameters;
/// `rest` are the words after the script, which `"$@"` stands for.
#[must_use]
pub fn commands(
    script: &str,
    known: &dyn Fn(&str) -> Option<String>,
    rest: &[String],
) -> Vec<Vec<String>> {
    let mut reader = LineReader { chars: script.chars().collect(), at: 0, known };
    let mut all = vec![Vec::new()];
    let mut redirected = false;
    while let Some(token) = reader.token() {
        match token {
            Token::End => {
                all.push(Vec::new());
                redirected = false;
            }
            Token::Redirection => redirected = true,
            // Where to, and no argument.
            Token::Word(_) if redirected => redirected = false,
            Token::Word(word) => {
                let Some(command) = all.last_mut() else { continue };
                match word {
                    Some(word) => command.push(word),
                    None => command.extend(rest.iter().cloned()),
                }
            }
        }
    }
    all.retain(|c| !c.is_empty());
    all
}

/// The words of one line, as systemd and environment files write them.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    commands(line, &|_| None, &[]).into_iter().flatten().collect()
}

enum Token {
    /// `None` is `"$@"`.
    Word(Option<String>),
    Redirection,
    /// The end of a command.
    End,
}

struct LineReader<'k> {
    chars: Vec<char>,
    at: usize,
    known: &'k dyn Fn(&str) -> Option<String>,
}

impl LineReader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn token(&mut self) -> Option<Token> {
        loop {
            match self.peek()? {
                '\n' => {
                    self.at += 1;
                    return Some(Token::End);
                }
                c if c.is_whitespace() => self.at += 1,
                '\\' if self.chars.get(self.at + 1) == Some(&'\n') => self.at += 2,
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                ';' | '&' | '|' | '(' | ')' => {
                    self.at += 1;
                    return Some(Token::End);
                }
                '<' | '>' => {
                    self.redirection();
                    return Some(Token::Redirection);
                }
                _ => return Some(self.word()),
            }
        }
    }

    /// `>`, `>>`, `>&`, `<<` and so on.
    fn redirection(&mut self) {
        while matches!(self.peek(), Some('<' | '>' | '&' | '|')) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Token {
        let mut word = String::new();
        let mut all_arguments = false;
        while let Some(c) = self.peek() {
            match c {
                '<' | '>' if !word.is_empty() && word.chars().all(|c| c.is_ascii_digit()) => {
                    // The number of what is redirected.
                    self.redirection();
                    return Token::Redirection;
                }
                c if c.is_whitespace() || ";&|()<>".contains(c) => break,
                '\'' => {
                    self.at += 1;
                    while let Some(c) = self.next().filter(|c| *c != '\'') {
                        word.push(c);
                    }
                }
                '"' => {
                    self.at += 1;
                    all_arguments |= self.quoted(&mut word);
                }
                '\\' => {
                    self.at += 1;
                    match self.next() {
                        None | Some('\n') => {}
                        Some(c) => word.push(c),
                    }
                }
                '$' => all_arguments |= self.parameter(&mut word),
                c => {
                    self.at += 1;
                    word.push(c);
                }
            }
        }
        Token::Word((!all_arguments || !word.is_empty()).then_some(word))
    }

    /// After the opening quote, to the closing one.
    fn quoted(&mut self, word: &mut String) -> bool {
        let mut all_arguments = false;
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.at += 1;
                    break;
                }
                '\\' => {
                    self.at += 1;
                    match self.next() {
                        Some('\n') | None => {}
                        Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                        Some(c) => word.extend(['\\', c]),
                    }
                }
                '$' => all_arguments |= self.parameter(word),
                c => {
                    self.at += 1;
                    word.push(c);
                }
            }
        }
        all_arguments
    }

    /// `$NAME`, `${NAME}`; true for `$@` and `$*`. What is not known stays as it is.
    fn parameter(&mut self, word: &mut String) -> bool {
        let start = self.at;
        self.at += 1;
        let name: String = match self.peek() {
            Some('@' | '*') => {
                self.at += 1;
                return true;
            }
            Some('{') => {
                self.at += 1;
                let rest = &self.chars[self.at..];
                let len = rest.iter().position(|c| *c == '}').unwrap_or(rest.len());
                self.at = (self.at + len + 1).min(self.chars.len());
                rest[..len].iter().collect()
            }
            _ => {
                let rest = &self.chars[self.at..];
                let name = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_');
                let name: String = name.collect();
                self.at += name.len();
                name
            }
        };
        match (self.known)(&name) {
            Some(value) => word.push_str(&value),
            None => word.extend(&self.chars[start..self.at]),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(script: &str) -> Vec<Vec<String>> {
        let known = |name: &str| (name == "IP").then(|| "10.0.0.1".to_owned());
        commands(script, &known, &["--last".to_owned()])
    }

    #[test]
    fn words_are_those_that_a_shell_would_hand_on() {
        for (script, expected) in [
            (r#"a --x="b c" --y='d "e"' f\ g"#, vec![vec!["a", "--x=b c", "--y=d \"e\"", "f g"]]),
            ("a \\\n  --b \\\n  --c # and so on\n", vec![vec!["a", "--b", "--c"]]),
            ("a --b 1>>/var/log/x 2>&1", vec![vec!["a", "--b"]]),
            ("a > /log --b", vec![vec!["a", "--b"]]),
            (
                "mkfifo /p; (cat < /p & ) ; exec a --b=1",
                vec![vec!["mkfifo", "/p"], vec!["cat"], vec!["exec", "a", "--b=1"]],
            ),
            ("a | tee -a /log && b", vec![vec!["a"], vec!["tee", "-a", "/log"], vec!["b"]]),
            (
                r#"a --u=http://$IP:1 "${IP}x" $OTHER '$IP'"#,
                vec![vec!["a", "--u=http://10.0.0.1:1", "10.0.0.1x", "$OTHER", "$IP"]],
            ),
            (r#"exec a --b "$@""#, vec![vec!["exec", "a", "--b", "--last"]]),
            (r#"a "" 'x"#, vec![vec!["a", "", "x"]]),
            ("", vec![]),
            ("# nothing", vec![]),
            ("a --b=c#d", vec![vec!["a", "--b=c#d"]]),
            ("a $", vec![vec!["a", "$"]]),
            ("a ${X", vec![vec!["a", "${X"]]),
        ] {
            assert_eq!(split(script), expected, "{script}");
        }
    }

    /// `sh` itself agrees.
    #[test]
    fn a_real_shell_agrees() {
        for line in [
            r#"--a="b c" --d='e "f"' g\ h "i\"j" "k\l" 'm'n"o""#,
            "--a \\\n --b # comment\n",
            r"--a=\\b '' x#y",
        ] {
            let script = format!("printf '%s\\n' {line}");
            let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let said = String::from_utf8(done.stdout).unwrap();
            let ours = words(line).join("\n") + "\n";
            assert_eq!(ours, said, "{line}");
        }
    }
}
