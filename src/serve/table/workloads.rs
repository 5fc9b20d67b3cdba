//! Workloads: `apps`, `batch`, `policy`.

use jiff::Timestamp;
use serde_json::Value;

use super::age::human;
use super::{Shown, containers, flag, labels, scalar, selector};

pub(super) fn cells(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    Some(match kind {
        "Deployment" => deployment(o),
        "ReplicaSet" => replicas(o, selector(o.at("/spec/selector"))),
        "StatefulSet" => {
            let ready = o.number("/status/readyReplicas");
            let [names, images] = containers(o.at("/spec/template/spec/containers"));
            let ready = format!("{ready}/{}", o.number("/spec/replicas"));
            vec![o.name(), ready.into(), o.age(), names, images]
        }
        "DaemonSet" => daemon_set(o),
        "ControllerRevision" => {
            let owners = o.items("/metadata/ownerReferences");
            let controller = owners.iter().find(|r| r["controller"] == true).map(|owner| {
                let part = |field: &str| owner[field].as_str().unwrap_or_default();
                let group = part("apiVersion").split_once('/').map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", part("kind").to_lowercase(), part("name"))
            });
            let controller = controller.unwrap_or_else(|| "<none>".to_owned());
            vec![o.name(), controller.into(), o.number("/revision").into(), o.age()]
        }
        "Job" => job(o),
        "CronJob" => cron_job(o),
        "PodDisruptionBudget" => {
            let bound = |pointer: &str| match o.at(pointer) {
                Value::Null => "N/A".to_owned(),
                value => scalar(value),
            };
            vec![
                o.name(),
                bound("/spec/minAvailable").into(),
                bound("/spec/maxUnavailable").into(),
                o.number("/status/disruptionsAllowed").into(),
                o.age(),
            ]
        }
        _ => return None,
    })
}

fn deployment(o: &Shown<'_>) -> Vec<Value> {
    let ready = format!("{}/{}", o.number("/status/readyReplicas"), o.number("/spec/replicas"));
    let [names, images] = containers(o.at("/spec/template/spec/containers"));
    vec![
        o.name(),
        ready.into(),
        o.number("/status/updatedReplicas").into(),
        o.number("/status/availableReplicas").into(),
        o.age(),
        names,
        images,
        selector(o.at("/spec/selector")),
    ]
}

/// Replica sets, and the replication controllers that came before them.
pub(super) fn replicas(o: &Shown<'_>, selected: Value) -> Vec<Value> {
    let [names, images] = containers(o.at("/spec/template/spec/containers"));
    vec![
        o.name(),
        o.number("/spec/replicas").into(),
        o.number("/status/replicas").into(),
        o.number("/status/readyReplicas").into(),
        o.age(),
        names,
        images,
        selected,
    ]
}

fn daemon_set(o: &Shown<'_>) -> Vec<Value> {
    let [names, images] = containers(o.at("/spec/template/spec/containers"));
    vec![
        o.name(),
        o.number("/status/desiredNumberScheduled").into(),
        o.number("/status/currentNumberScheduled").into(),
        o.number("/status/numberReady").into(),
        o.number("/status/updatedNumberScheduled").into(),
        o.number("/status/numberAvailable").into(),
        labels(o.at("/spec/template/spec/nodeSelector")),
        o.age(),
        names,
        images,
        selector(o.at("/spec/selector")),
    ]
}

fn job(o: &Shown<'_>) -> Vec<Value> {
    let succeeded = o.number("/status/succeeded");
    let completions = match o.at("/spec/completions").as_i64() {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match o.number("/spec/parallelism") {
            parallel if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let time = |pointer: &str| o.text(pointer).parse::<Timestamp>().ok();
    let duration = time("/status/startTime").map_or_else(String::new, |start| {
        let end = time("/status/completionTime").unwrap_or(o.now);
        human(end.as_second() - start.as_second())
    });
    let status = if o.condition("Complete") {
        "Complete"
    } else if o.condition("Failed") {
        "Failed"
    } else if o.is_deleted() {
        "Terminating"
    } else {
        let told = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
        told.into_iter().find(|c| o.condition(c)).unwrap_or("Running")
    };
    let [names, images] = containers(o.at("/spec/template/spec/containers"));
    vec![
        o.name(),
        status.into(),
        completions.into(),
        duration.into(),
        o.age(),
        names,
        images,
        selector(o.at("/spec/selector")),
    ]
}

fn cron_job(o: &Shown<'_>) -> Vec<Value> {
    let last = match o.text("/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        _ => o.since("/status/lastScheduleTime"),
    };
    let [names, images] = containers(o.at("/spec/jobTemplate/spec/template/spec/containers"));
    vec![
        o.name(),
        o.text("/spec/schedule").into(),
        o.or("/spec/timeZone", "<none>"),
        flag(o.at("/spec/suspend")),
        o.items("/status/active").len().into(),
        last.into(),
        o.age(),
        names,
        images,
        selector(o.at("/spec/jobTemplate/spec/selector")),
    ]
}
