//! Everything that reports: what it is, where it belongs, and whether it is there.
//!
//! Two streams of facts meet here. *Sightings* come over the broker, seldom: a gateway met a resource for the first time,
//! again after a while, or with other labels. *Heartbeats* lie in Redis, overwritten every few seconds. A sighting makes
//! or describes a resource; heartbeats alone decide whether it is online, idle or offline. Any replica takes sightings;
//! one, by lease, judges heartbeats.
//!
//! Absence of heartbeats is evidence only while a gateway was there to hear and Redis to hold them: otherwise nothing is
//! judged to be gone until whoever is alive had time to say so. How long a silence must be to mean something is learned from
//! each source. A second costs what reports and changes in it, not what there is.
//!
//! What changes is published from an outbox, so a change and its announcement happen both or not at all.

pub mod app;
pub mod config;
pub mod consumer;
pub mod grpc;
pub mod heartbeats;
pub mod metrics;
pub mod presence;
pub mod publisher;
pub mod resource;
pub mod roster;
pub mod store;
pub mod sweeper;
