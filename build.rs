//! Generates the messages of the KMS plugin services, and the services themselves for the test
//! plugin, without `protoc`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["proto/kms_v1beta1.proto", "proto/kms_v2.proto"];
    for proto in protos {
        println!("cargo::rerun-if-changed={proto}");
    }
    println!("cargo::rerun-if-changed=build.rs");
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
