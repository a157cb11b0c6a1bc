//! The command stream: open all the time, mostly silent. Every command is refused, except the one to go away for a
//! while.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::CancellationToken;
use proto::gosight::stream_payload::Payload;
use proto::gosight::{CommandRequest, CommandResponse};
use tonic::Status;

use super::{Ended, Sessions, client, message, outgoing};
use crate::gateway::Gateway;
use crate::metrics::Metrics;

/// How long to stay away after `control disconnect`; the field's agents do the same, and gateways drain by it.
const REST: Duration = Duration::from_secs(60);

pub struct Commands {
    pub gateway: Arc<Gateway>,
    pub metrics: Arc<Metrics>,
}

impl Commands {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut sessions = Sessions::new("commands");
        while sessions.again(self.session(&stop).await, &stop).await {}
    }

    async fn session(&self, stop: &CancellationToken) -> Result<Ended, Status> {
        let mut closed = self.gateway.closed();
        let channel = tokio::select! {
            channel = self.gateway.channel() => channel,
            () = stop.cancelled() => return Ok(Ended::Stopping),
        };
        let (messages, request) = outgoing(&self.gateway)?;
        let mut client = client(channel);
        // Without a limit of time: a server may answer the call only when it has a command.
        let mut incoming = tokio::select! {
            opened = client.stream(request) => opened?.into_inner(),
            _ = closed.changed() => return Ok(Ended::Closed),
            () = stop.cancelled() => return Ok(Ended::Stopping),
        };
        loop {
            let response = tokio::select! {
                response = incoming.message() => response?,
                _ = closed.changed() => return Ok(Ended::Closed),
                () = stop.cancelled() => return Ok(Ended::Stopping),
            };
            let Some(response) = response else { return Ok(Ended::Closed) };
            let Some(command) = response.command else { continue };
            if asks_to_disconnect(&command) {
                tracing::info!(seconds = REST.as_secs(), "the gateway asked this agent to disconnect for a while");
                self.gateway.rest(REST);
                return Ok(Ended::Closed);
            }
            tracing::warn!(kind = command.command_type, "a command was refused");
            self.metrics.commands_refused.inc();
            let sent = messages.send(message(Payload::CommandResponse(refusal()))).await;
            sent.map_err(|_| Status::unavailable("the stream was closed"))?;
        }
    }
}

fn asks_to_disconnect(command: &CommandRequest) -> bool {
    command.command_type == "control" && command.command == "disconnect"
}

fn refusal() -> CommandResponse {
    CommandResponse {
        success: false,
        output: String::new(),
        error_message: "commands are disabled on this agent".to_owned(),
    }
}
