//! What can be typed after `fieldveil ca`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `fieldveil ca COMMAND`.
#[derive(Subcommand, Debug)]
pub enum CaCommand {
    /// Makes the CA by which the agent stands in for the hosts that a policy names: a certificate, and its key (0600)
    #[command(after_help = "\
Names are written into the certificate: clients take it for nobody else. What is there already is never overwritten.

Examples:
  fieldveil ca init --config /etc/fieldveil/settings.yaml
  fieldveil ca init --dir /var/lib/fieldveil/ca --name example.com --name partner.example")]
    Init(CaInitArgs),
    /// Prints the certificate, for clients to trust
    #[command(after_help = "\
Example:
  fieldveil ca print --dir /var/lib/fieldveil/ca > ca.pem")]
    Print(CaArgs),
    /// Tells how the usual clients are made to trust it, and writes a bundle for those that want all their roots in one file
    #[command(after_help = "\
Example:
  fieldveil ca trust --dir /var/lib/fieldveil/ca --bundle /var/lib/fieldveil/ca/bundle.pem")]
    Trust(CaTrustArgs),
}

/// Which CA.
#[derive(Args, Debug)]
pub struct CaArgs {
    /// The settings, whose `ca` it is
    #[arg(
        long,
        value_name = "FILE",
        env = "FIELDVEIL_CONFIG",
        required_unless_present = "dir"
    )]
    pub config: Option<PathBuf>,
    /// The CA's directory, instead: `ca.pem` and `ca.key`
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `fieldveil ca init`.
#[derive(Args, Debug)]
pub struct CaInitArgs {
    /// Which CA.
    #[command(flatten)]
    pub ca: CaArgs,
    /// With --dir: a domain whose hosts it may vouch for, or an address; without any, it may vouch for every host
    #[arg(long = "name", value_name = "NAME", requires = "dir")]
    pub names: Vec<String>,
    /// How long it is good
    #[arg(long, value_name = "DAYS", default_value_t = 1825, value_parser = clap::value_parser!(u32).range(1..=7300))]
    pub days: u32,
}

/// `fieldveil ca trust`.
#[derive(Args, Debug)]
pub struct CaTrustArgs {
    /// Which CA.
    #[command(flatten)]
    pub ca: CaArgs,
    /// Writes the system's roots and this certificate into one file
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}
