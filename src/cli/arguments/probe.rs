//! What can be typed after `fieldveil probe`.

use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `fieldveil probe`.
#[derive(Args, Debug)]
#[command(after_help = "\
For whoever looks after a process and cannot send a request itself: HEALTHCHECK of an image, ExecStartPost of systemd.

Examples:
  fieldveil probe ready --config /etc/fieldveil/settings.yaml
  fieldveil probe live --probes 127.0.0.1:9902")]
pub struct ProbeArgs {
    /// Whether it answers at all, or whether requests should be sent there
    #[arg(value_name = "WHAT", value_enum)]
    pub what: ProbeOf,
    /// The settings file of the agent, which says where its probes are
    #[arg(
        long,
        alias = "settings",
        value_name = "FILE",
        env = "FIELDVEIL_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// Where the agent's probes are, over what the file says
    #[arg(long, value_name = "ADDRESS", env = "FIELDVEIL_PROBES", value_parser = super::address)]
    pub probes: Option<SocketAddr>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeOf {
    /// `GET /livez`: the process answers
    Live,
    /// `GET /readyz`: nothing stands in the way of requests
    Ready,
}
