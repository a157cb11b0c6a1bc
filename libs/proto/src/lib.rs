//! Generated protobuf and gRPC code, one module a package of `proto/`. No logic of any kind.
#![allow(clippy::all, clippy::pedantic, missing_docs)]

/// What GoSight agents speak.
pub mod gosight {
    tonic::include_proto!("proto");
}

/// `sightline.telemetry.v1`
pub mod telemetry {
    tonic::include_proto!("sightline.telemetry.v1");
}

/// `sightline.registry.v1`
pub mod registry {
    tonic::include_proto!("sightline.registry.v1");
}

/// `sightline.logs.v1`
pub mod logs {
    tonic::include_proto!("sightline.logs.v1");
}

/// `sightline.rules.v1`
pub mod rules {
    tonic::include_proto!("sightline.rules.v1");
}

/// `sightline.alerts.v1`
pub mod alerts {
    tonic::include_proto!("sightline.alerts.v1");
}

/// `sightline.dispatch.v1`
pub mod dispatch {
    tonic::include_proto!("sightline.dispatch.v1");
}

/// `sightline.auth.v1`
pub mod auth {
    tonic::include_proto!("sightline.auth.v1");
}
