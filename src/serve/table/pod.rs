//! Pods, whose status is told from everything that can go wrong with one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Shown;
use super::age::ago;

/// Restarts, and when the last one was.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].as_i64().unwrap_or_default();
        let ended = status["lastState"]["terminated"]["finishedAt"].as_str();
        self.last = self.last.max(ended.and_then(|t| t.parse().ok()));
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => format!("{} ({} ago)", self.count, ago(last, now)),
            _ => self.count.to_string(),
        }
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// How a container ended, where it gives no reason.
fn ended(terminated: &Value) -> String {
    match terminated["signal"].as_i64() {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or_default()),
    }
}

pub(super) fn cells(o: &Shown<'_>) -> Vec<Value> {
    let mut reason = match o.text("/status/reason") {
        "" => o.text("/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let scheduling = o.items("/status/conditions").iter();
    if scheduling.clone().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let init = o.items("/spec/initContainers");
    let restartable =
        |name: &str| init.iter().any(|c| c["name"] == name && c["restartPolicy"] == "Always");
    let sidecars = init.iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = o.items("/spec/containers").len() + sidecars;
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (i, status) in o.items("/status/initContainerStatuses").iter().enumerate() {
        restarts.add(status);
        let sidecar = restartable(text(status, "name"));
        if sidecar {
            sidecar_restarts.add(status);
        }
        let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
        if terminated.is_object() && terminated["exitCode"].as_i64().unwrap_or_default() == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            ready += usize::from(status["ready"] == true);
            continue;
        }
        reason = if terminated.is_object() {
            match text(terminated, "reason") {
                "" => format!("Init:{}", ended(terminated)),
                reason => format!("Init:{reason}"),
            }
        } else if !matches!(text(waiting, "reason"), "" | "PodInitializing") {
            format!("Init:{}", text(waiting, "reason"))
        } else {
            format!("Init:{i}/{}", init.len())
        };
        initializing = true;
        break;
    }
    if !initializing || o.condition("Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for status in o.items("/status/containerStatuses").iter().rev() {
            restarts.add(status);
            let (terminated, waiting) =
                (&status["state"]["terminated"], &status["state"]["waiting"]);
            if !text(waiting, "reason").is_empty() {
                text(waiting, "reason").clone_into(&mut reason);
            } else if !text(terminated, "reason").is_empty() {
                text(terminated, "reason").clone_into(&mut reason);
            } else if terminated.is_object() && reason.is_empty() {
                reason = ended(terminated);
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        // One that has ended beside one that still runs.
        if reason == "Completed" && running {
            (if o.condition("Ready") { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    if o.is_deleted() {
        if o.text("/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(o.text("/status/phase"), "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut reason);
        }
    }
    let gates = o.items("/spec/readinessGates");
    let passed = gates.iter().filter(|g| o.condition(text(g, "conditionType"))).count();
    let address = match o.text("/status/podIPs/0/ip") {
        "" => o.or("/status/podIP", "<none>"),
        ip => ip.into(),
    };
    vec![
        o.name(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.text(o.now).into(),
        o.age(),
        address,
        o.or("/spec/nodeName", "<none>"),
        o.or("/status/nominatedNodeName", "<none>"),
        if gates.is_empty() { "<none>".into() } else { format!("{passed}/{}", gates.len()).into() },
    ]
}

/// Pods that are over can be left out by clients that know this.
pub(super) fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match pod["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}
