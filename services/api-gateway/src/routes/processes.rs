//! What runs on a host.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use proto::logs::{GetProcessesRequest, ProcessRow};
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::Id;
use crate::instant;
use crate::state::{AppState, Caller};

#[derive(Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// When the agent took it
    time: String,
    items: Vec<Process>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Process {
    pid: i32,
    ppid: i32,
    user: String,
    executable: String,
    command_line: String,
    /// Percent of one core since the snapshot before
    cpu_percent: f64,
    /// Percent of the host's memory
    memory_percent: f64,
    threads: i32,
    start_time: Option<String>,
}

impl From<ProcessRow> for Process {
    fn from(row: ProcessRow) -> Self {
        Self {
            pid: row.pid,
            ppid: row.ppid,
            user: row.user,
            executable: row.executable,
            command_line: row.command_line,
            cpu_percent: row.cpu_percent,
            memory_percent: row.memory_percent,
            threads: row.threads,
            start_time: instant::rfc3339_or_none(row.start_time_unix_nano),
        }
    }
}

/// The newest process snapshot of a host. Needs `processes:read`.
#[utoipa::path(get, path = "/api/v1/resources/{id}/processes", tag = "resources", params(("id" = String, Path)),
    responses((status = 200, body = Snapshot), (status = 404)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id<String>,
) -> Result<Json<Snapshot>, Fault> {
    let request = caller.request(Permission::ProcessesRead, GetProcessesRequest { resource_id: id })?;
    let answer = state.clients.logs.clone().get_processes(request).await?.into_inner();
    let items = answer.items.into_iter().map(Process::from).collect();
    Ok(Json(Snapshot { time: instant::rfc3339(answer.time_unix_nano), items }))
}
