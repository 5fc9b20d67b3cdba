//! Generates the messages of the KMS plugin services, and the services themselves for the test
//! plugin, without `protoc`; and what `--version` says of this build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "live")]
    messages()?;
    version();
    Ok(())
}

#[cfg(feature = "live")]
fn messages() -> Result<(), Box<dyn std::error::Error>> {
    use std::path::Path;

    let protos = ["proto/kms_v1beta1.proto", "proto/kms_v2.proto"];
    for proto in protos {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(protos, ["proto"])?;

    // The library needs messages only. They carry keys, so they get no `Debug`.
    prost_build::Config::new().skip_debug(["."]).compile_fds(descriptors.clone())?;

    // The test plugin includes these.
    let servers = Path::new(&std::env::var("OUT_DIR")?).join("server");
    std::fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .emit_rerun_if_changed(false)
        .out_dir(servers)
        .compile_fds(descriptors)?;
    Ok(())
}

/// `scripts/release` says which commit it builds and when that was made. A build of a working tree
/// may hold anything, so it names no commit.
fn version() {
    for name in ["ATREST_COMMIT", "ATREST_COMMIT_DATE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let told = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    let mut features: Vec<_> = std::env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()))
        .filter(|name| name != "default")
        .collect();
    features.sort();
    let linked = match std::env::var("CARGO_CFG_TARGET_FEATURE") {
        Ok(list) if list.split(',').any(|f| f == "crt-static") => "static",
        _ => "dynamic",
    };
    println!("cargo::rustc-env=ATREST_COMMIT={}", told("ATREST_COMMIT"));
    println!("cargo::rustc-env=ATREST_COMMIT_DATE={}", told("ATREST_COMMIT_DATE"));
    println!("cargo::rustc-env=ATREST_TARGET={} ({linked})", told("TARGET"));
    println!("cargo::rustc-env=ATREST_FEATURES={}", features.join(" "));
}
