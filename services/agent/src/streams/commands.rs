//! The command stream: open all the time, mostly silent. Every command is refused, except the one to go away for a
//! while.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::CancellationToken;
use proto::gosight::stream_payload::Payload;
use proto::gosight::{CommandRequest, CommandResponse};
use rand::Rng as _;
use tonic::Status;

use super::{Closed, Sessions, client, message, outgoing};
use crate::gateway::Gateway;
use crate::metrics::Metrics;

/// Within what time to be back after `control disconnect` that does not say; the field's agents take all of it.
const REST: Duration = Duration::from_secs(60);

pub struct Commands {
    pub gateway: Arc<Gateway>,
    pub metrics: Metrics,
}

impl Commands {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut sessions = Sessions::new("commands");
        loop {
            // Also when the gateway asks and does not read the answers.
            let outcome = tokio::select! {
                outcome = self.session() => outcome,
                () = stop.cancelled() => return,
            };
            if !sessions.again(outcome, &stop).await {
                return;
            }
        }
    }

    /// Until the stream ends. May be dropped at any time.
    async fn session(&self) -> Result<Closed, Status> {
        let mut closed = self.gateway.closed();
        let channel = self.gateway.channel().await;
        let (messages, request) = outgoing(&self.gateway)?;
        let mut client = client(channel);
        // Without a limit of time: a server may answer the call only when it has a command.
        let mut incoming = tokio::select! {
            opened = client.stream(request) => opened?.into_inner(),
            _ = closed.changed() => return Ok(Closed),
        };
        loop {
            let response = tokio::select! {
                response = incoming.message() => response?,
                _ = closed.changed() => return Ok(Closed),
            };
            let Some(response) = response else { return Ok(Closed) };
            let Some(command) = response.command else { continue };
            if let Some(within) = asks_to_disconnect(&command) {
                // All agents of a gateway hear it at once, and must not come back at once.
                let rest = within.mul_f64(rand::rng().random_range(0.2..1.0));
                tracing::info!(seconds = rest.as_secs_f64(), "the gateway asked this agent to disconnect for a while");
                self.gateway.rest(rest);
                return Ok(Closed);
            }
            tracing::warn!(kind = command.command_type, "a command was refused");
            self.metrics.commands_refused.inc();
            let sent = tokio::select! {
                sent = messages.send(message(Payload::CommandResponse(refusal()))) => sent,
                _ = closed.changed() => return Ok(Closed),
            };
            sent.map_err(|_| Status::unavailable("the stream was closed"))?;
        }
    }
}

/// Within what time the agent is to be back, if it is to go away at all: `within=5s` among the arguments.
fn asks_to_disconnect(command: &CommandRequest) -> Option<Duration> {
    let asked = command.command_type == "control" && command.command == "disconnect";
    let within = || {
        let seconds = command.args.iter().find_map(|arg| arg.strip_prefix("within=")?.strip_suffix('s'))?;
        Some(Duration::from_secs(seconds.parse().ok()?).min(REST))
    };
    asked.then(|| within().unwrap_or(REST))
}

fn refusal() -> CommandResponse {
    CommandResponse {
        success: false,
        output: String::new(),
        error_message: "commands are disabled on this agent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_says_when_to_come_back() {
        let command = |args: &[&str]| CommandRequest {
            command_type: "control".to_owned(),
            command: "disconnect".to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..CommandRequest::default()
        };
        assert_eq!(asks_to_disconnect(&command(&["within=5s"])), Some(Duration::from_secs(5)));
        for unusable in [&[][..], &["within=soon"], &["within=1e9s"], &["within=3600s"]] {
            assert_eq!(asks_to_disconnect(&command(unusable)), Some(REST));
        }
        assert_eq!(asks_to_disconnect(&CommandRequest::default()), None);
    }
}
