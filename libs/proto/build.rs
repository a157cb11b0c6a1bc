//! Compiles `proto/` without a system protoc.

fn main() -> anyhow::Result<()> {
    let root = "../../proto";
    let files = [
        "gosight/gosight.proto",
        "sightline/telemetry/v1/processes.proto",
        "sightline/registry/v1/registry.proto",
        "sightline/logs/v1/logs.proto",
        "sightline/rules/v1/rules.proto",
        "sightline/alerts/v1/alerts.proto",
        "sightline/dispatch/v1/dispatch.proto",
        "sightline/auth/v1/auth.proto",
    ];
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(files, [root])?;
    tonic_prost_build::configure()
        .type_attribute(".", "#[allow(clippy::all, clippy::pedantic)]")
        .compile_fds(descriptors)?;
    Ok(())
}
