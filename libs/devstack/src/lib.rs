//! Sightline on one machine: the four servers, the ten services and the agent, as `cargo dev` and the end-to-end tests
//! start them.
//!
//! The pieces a test needs: [`servers`] finds, fetches and starts the servers; [`services`] computes the environment of
//! each process from one [`services::Stack`]; [`process`] starts a child that dies with its parent. The rest is
//! `cargo dev` itself: [`command`] holds its subcommands, [`watched`] restarts what dies, [`state`] is what a running
//! `up` leaves for the other commands.
//!
//! It is compiled before anything else can be seen, so it has no async runtime and next to no dependencies.

pub mod account;
pub mod address;
pub mod backoff;
pub mod build;
pub mod command;
pub mod configuration;
pub mod console;
pub mod http;
pub mod interrupt;
pub mod ports;
pub mod previous;
pub mod process;
pub mod servers;
pub mod services;
pub mod session;
pub mod state;
pub mod summary;
pub mod supervisor;
pub mod watched;
pub mod workspace;
