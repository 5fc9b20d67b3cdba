//! `apply.sh`: the steps as a script that people can read before they run it.

use std::fmt::Write as _;

use super::{Minor, Step};

/// The script for steps that exist, in their order.
#[must_use]
pub fn apply_script(steps: &[Step], target: Minor) -> String {
    let mut script = format!(
        r#"#!/bin/sh
# Puts what lies beside this file into the cluster that kubectl speaks to, step by step:
#
#     ./apply.sh --context new-cluster
#
# Made for Kubernetes {target}. Arguments go to every kubectl; KUBECONFIG is honoured. A step that
# fails is named at the end, the others are still done, and the exit code is 1 then. It can be run
# again: it sets once more what the backup says, and leaves alone what it does not speak of.
set -u
dir=$(dirname -- "$0")
failed=

step() {{
    name=$1
    shift
    echo "apply.sh: $name" >&2
    # On the server's side, because a large Secret does not fit the annotation of the other way.
    # The backup wins over what somebody else has set meanwhile.
    kubectl apply --server-side --force-conflicts --recursive -f "$dir/$name" "$@" ||
        failed="$failed $name"
}}

"#
    );
    for step in steps {
        let name = step.directory();
        // Writing to a String cannot fail.
        let _ = writeln!(script, "step {name} \"$@\"");
        if *step == Step::Definitions {
            let _ = write!(
                script,
                r#"# Custom resources are refused until the server serves their kinds.
case " $* " in *" --dry-run"*) ;; *)
    kubectl wait --for=condition=Established --timeout=120s --recursive -f "$dir/{name}" "$@" ||
        failed="$failed {name}(waiting)"
esac
"#
            );
        }
    }
    script.push_str(
        r#"
if [ -n "$failed" ]; then
    echo "apply.sh: not everything could be applied; failed steps:$failed" >&2
    exit 1
fi
"#,
    );
    script
}
