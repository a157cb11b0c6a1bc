//! Channels to the services that own things.

use proto::alerts::alerts_client::AlertsClient;
use proto::auth::auth_client::AuthClient;
use proto::dispatch::dispatch_client::DispatchClient;
use proto::logs::log_search_client::LogSearchClient;
use proto::registry::registry_client::RegistryClient;
use proto::rules::rules_client::RulesClient;
use rpc::{Channel, Identity};

use crate::config::Config;

/// A log line may be long, and a page holds up to a thousand of them.
const LARGEST_ANSWER: usize = 64 << 20;

/// Clients are cheap to clone; each call clones its own.
pub(crate) struct Clients {
    pub(crate) auth: AuthClient<Channel>,
    pub(crate) registry: RegistryClient<Channel>,
    pub(crate) logs: LogSearchClient<Channel>,
    pub(crate) rules: RulesClient<Channel>,
    pub(crate) alerts: AlertsClient<Channel>,
    pub(crate) dispatch: DispatchClient<Channel>,
}

impl Clients {
    pub(crate) fn new(config: &Config, identity: &Identity) -> anyhow::Result<Self> {
        let channel = |url| rpc::channel(identity, url);
        Ok(Self {
            auth: AuthClient::new(channel(&config.auth_url)?),
            registry: RegistryClient::new(channel(&config.registry_url)?).max_decoding_message_size(LARGEST_ANSWER),
            logs: LogSearchClient::new(channel(&config.log_writer_url)?).max_decoding_message_size(LARGEST_ANSWER),
            rules: RulesClient::new(channel(&config.rule_engine_url)?).max_decoding_message_size(LARGEST_ANSWER),
            alerts: AlertsClient::new(channel(&config.alert_service_url)?).max_decoding_message_size(LARGEST_ANSWER),
            dispatch: DispatchClient::new(channel(&config.dispatcher_url)?).max_decoding_message_size(LARGEST_ANSWER),
        })
    }
}
