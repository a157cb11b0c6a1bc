//! What a user may be allowed to do. The names are part of the contract: roles, tokens and docs use them.

use std::fmt;

/// One thing that a user may be allowed to do within their tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See resources, their labels and status.
    ResourcesRead,
    /// Query metrics.
    MetricsRead,
    /// Search logs and follow them live.
    LogsRead,
    /// See process snapshots.
    ProcessesRead,
    /// See rules.
    RulesRead,
    /// Create, change and delete rules.
    RulesWrite,
    /// See alerts.
    AlertsRead,
    /// End alerts by hand.
    AlertsWrite,
    /// See receivers, without their secrets.
    ReceiversRead,
    /// Create, change and delete receivers.
    ReceiversWrite,
    /// See what was delivered to whom.
    DeliveriesRead,
    /// See the health of the installation.
    StatusRead,
    /// Hand out agents' credentials, see them, take them back.
    AgentsWrite,
    /// Send telemetry with a user's token.
    TelemetryWrite,
    /// End other users' sessions.
    UsersWrite,
    /// See, rotate and retire the keys that sign tokens.
    KeysWrite,
}

impl Permission {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 16] = [
        Self::ResourcesRead,
        Self::MetricsRead,
        Self::LogsRead,
        Self::ProcessesRead,
        Self::RulesRead,
        Self::RulesWrite,
        Self::AlertsRead,
        Self::AlertsWrite,
        Self::ReceiversRead,
        Self::ReceiversWrite,
        Self::DeliveriesRead,
        Self::StatusRead,
        Self::AgentsWrite,
        Self::TelemetryWrite,
        Self::UsersWrite,
        Self::KeysWrite,
    ];

    /// The name in roles and tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ResourcesRead => "resources:read",
            Self::MetricsRead => "metrics:read",
            Self::LogsRead => "logs:read",
            Self::ProcessesRead => "processes:read",
            Self::RulesRead => "rules:read",
            Self::RulesWrite => "rules:write",
            Self::AlertsRead => "alerts:read",
            Self::AlertsWrite => "alerts:write",
            Self::ReceiversRead => "receivers:read",
            Self::ReceiversWrite => "receivers:write",
            Self::DeliveriesRead => "deliveries:read",
            Self::StatusRead => "status:read",
            Self::AgentsWrite => "agents:write",
            Self::TelemetryWrite => "telemetry:write",
            Self::UsersWrite => "users:write",
            Self::KeysWrite => "keys:write",
        }
    }

    /// The permission of that name, or nothing: a token from a newer auth may name ones that this service has no use for.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_is_found_by_its_name() {
        for permission in Permission::ALL {
            assert_eq!(Permission::named(permission.as_str()), Some(permission));
        }
        assert_eq!(Permission::named("everything:write"), None);
    }
}
