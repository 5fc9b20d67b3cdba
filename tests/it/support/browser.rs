//! Pages as Debian's Chromium shows them. Where it is missing, tests say so and pass:
//! [`Browser::new`] gives nothing then. `scripts/setup` installs it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// A browser without a window.
pub struct Browser {
    dir: tempfile::TempDir,
}

/// What a page is like, and what the browser had to say of it.
pub struct Looked {
    /// What the script found.
    pub found: Value,
    /// Messages of its console: errors of scripts, and what its policy refused.
    pub console: Vec<String>,
}

impl Browser {
    pub fn new() -> Option<Self> {
        let there = Command::new("chromium-headless-shell").arg("--version").output();
        if there.is_err() {
            println!(
                "skipped: chromium-headless-shell is not installed (scripts/setup installs it)"
            );
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    /// Shows `page` in a frame `width` pixels wide and runs `script` when it is there: a function's
    /// body that has the frame's `document` and `window`, and returns what was found.
    pub fn look(&self, page: &str, fragment: &str, width: u32, script: &str) -> Looked {
        let put = |name: &str, text: &str| -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        put("page.html", page);
        let around = put(
            "around.html",
            &format!(
                "<!DOCTYPE html><meta charset=utf-8>\
                 <iframe id=frame width={width} height=900 style=border:0 src=\"page.html#{fragment}\"></iframe>\
                 <pre id=found></pre><script>\
                 const look = (document, window) => {{ {script} }};\
                 frame.onload = () => {{ found.textContent = JSON.stringify(\
                 look(frame.contentDocument, frame.contentWindow)); }}</script>"
            ),
        );
        let done = Command::new("chromium-headless-shell")
            .args(["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
            // A page from a file is a stranger to the page around it otherwise.
            .args(["--allow-file-access-from-files", "--enable-logging=stderr"])
            .args(["--virtual-time-budget=60000", "--window-size=1500,1000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", self.dir.path().join("profile").display()))
            .arg(format!("file://{}", around.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        let console = said.lines().filter(|l| l.contains("CONSOLE")).map(str::to_owned).collect();
        let document = String::from_utf8(done.stdout).unwrap();
        let found =
            document.split_once("<pre id=\"found\">").and_then(|(_, r)| r.split_once("</pre>"));
        let found = found.unwrap_or_else(|| panic!("{document}\n{said}")).0;
        let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let found = serde_json::from_str(&found).unwrap_or_else(|e| panic!("{e}: {found}\n{said}"));
        Looked { found, console }
    }
}
