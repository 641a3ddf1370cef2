//! `fieldveil redirect`: what can be typed.

use crate::redirect::Interface;
use clap::{Args, Subcommand};

/// What is done about the rules.
#[derive(Subcommand, Debug)]
pub enum RedirectCommand {
    /// Puts the rules in force in this network namespace, in the place of older ones; needs nft, and the right to use it
    #[command(after_help = "\
Examples:
  fieldveil redirect up --uid 990 --to 15001
  ip netns exec shop fieldveil redirect up --uid 990 --to 15001 --port 80 --port 443 --port 8443")]
    Up(RedirectArgs),
    /// Takes them away again, whether or not they are there
    Down,
    /// Prints them, and touches nothing
    #[command(after_help = "\
Examples:
  fieldveil redirect print --uid 990 --to 15001 > fieldveil.nft")]
    Print(RedirectArgs),
}

/// Which connections are redirected.
#[derive(Args, Debug)]
pub struct RedirectArgs {
    /// The user that the agent runs as, by number: its own connections are left alone
    #[arg(long, value_name = "UID", required_unless_present = "mark")]
    pub uid: Option<u32>,
    /// The mark that the agent's connections to upstreams bear, as `redirect: {mark: …}` of its settings has it: they are left alone, whoever it runs as
    #[arg(long, value_name = "MARK", value_parser = clap::value_parser!(u32).range(1..))]
    pub mark: Option<u32>,
    /// The port of the transparent listeners, on 127.0.0.1 and on ::1
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub to: u16,
    /// A TCP port that connections are redirected from; UDP is refused there, so that clients fall back from QUIC
    #[arg(long = "port", value_name = "PORT", default_values_t = [80, 443], value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// An interface by which other machines' or namespaces' connections come to be routed through this one: they are redirected, too, to the address that this machine has there
    #[arg(long = "interface", value_name = "NAME")]
    pub interfaces: Vec<Interface>,
}
