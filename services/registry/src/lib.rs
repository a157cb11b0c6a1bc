//! Everything that reports: what it is, where it belongs, and whether it is there.
//!
//! Two streams of facts meet here. *Sightings* come over the broker, seldom: a gateway met a resource for the first time,
//! again after a while, or with other labels. *Heartbeats* lie in Redis, overwritten every few seconds. A sighting makes
//! or describes a resource; heartbeats alone decide whether it is online, idle or offline. Any replica takes sightings;
//! one, by lease, judges heartbeats.
//!
//! Absence of heartbeats is evidence only while Redis was there to hold them: after it was away or lost its memory,
//! nothing is judged to be gone until whoever is alive had time to say so.
//!
//! What changes is published from an outbox, so a change and its announcement happen both or not at all.

pub mod app;
pub mod config;
pub mod consumer;
pub mod grpc;
pub mod heartbeats;
pub mod metrics;
pub mod presence;
pub mod relay;
pub mod resource;
pub mod store;
pub mod sweeper;
