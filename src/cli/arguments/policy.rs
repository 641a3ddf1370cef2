//! What can be typed after `fieldveil policy`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `fieldveil policy COMMAND`.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Checks policy files, and says what in them is probably not meant: 0, or 78 with what is wrong and where
    #[command(after_help = "\
Examples:
  fieldveil policy check policies/payments.yaml
  fieldveil policy check --environment production --deny warnings /etc/fieldveil/policies
  fieldveil --output sarif policy check policies/")]
    Check(PolicyCheckArgs),
    /// Runs the tests beside policies: 0, 1 if one fails, 78 if a policy or a test file is wrong
    #[command(after_help = "\
Examples:
  fieldveil policy test policies/
  fieldveil policy test --output github policies/payments.test.yaml
  fieldveil policy test --output junit policies/ > tests.xml")]
    Test(PolicyTestArgs),
    /// Tells what would happen to a request, value by value, and why
    #[command(after_help = "\
Examples:
  fieldveil policy explain --policy policies/payments.yaml --method POST --body customer.json \\
    --header 'X-Merchant: acme' https://api.payments.example/v1/customers/c_42
  fieldveil policy explain --policy policies/ api.payments.example/v1/charges")]
    Explain(PolicyExplainArgs),
    /// Tells which values of sample bodies no rule names
    #[command(after_help = "\
Examples:
  fieldveil policy coverage --policy policies/payments.yaml --route customers bodies/*.json
  fieldveil policy coverage --policy policies/payments.yaml --route customers --fail-under 100 customer.json
  fieldveil policy coverage --policy policies/payments.yaml --route customers --output github bodies/*.json")]
    Coverage(PolicyCoverageArgs),
    /// Compares two policies: 0 if the new one protects as much, 1 if something gets weaker
    #[command(after_help = "\
Examples:
  fieldveil policy diff old.yaml new.yaml
  git show main:policies/payments.yaml > /tmp/old.yaml && fieldveil policy diff /tmp/old.yaml policies/payments.yaml")]
    Diff(PolicyDiffArgs),
    /// Lays policy files out evenly; comments and meaning stay
    #[command(after_help = "\
Examples:
  fieldveil policy fmt policies/
  fieldveil policy fmt --check policies/")]
    Fmt(PolicyFmtArgs),
    /// Prints the JSON Schema of policies, or of their tests, for editors
    #[command(after_help = "\
Examples:
  fieldveil policy schema > policy.schema.json
  fieldveil policy schema test > policy-test.schema.json")]
    Schema(PolicySchemaArgs),
}

/// `fieldveil policy check`.
#[derive(Args, Debug)]
pub struct PolicyCheckArgs {
    /// Files, and directories that are searched for *.yaml but *.test.yaml
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Applies this environment of the policies
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// Findings that count as errors
    #[arg(long, value_name = "WHAT", value_enum)]
    pub deny: Option<Deny>,
}

/// What `policy check --deny` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// What is probably not meant
    Warnings,
}

/// `fieldveil policy test`.
#[derive(Args, Debug)]
pub struct PolicyTestArgs {
    /// Test files, policies (their tests are beside them), and directories that are searched for *.test.yaml
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Runs the cases whose name holds this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Lists the cases that passed, too
    #[arg(long, short)]
    pub verbose: bool,
}

/// `fieldveil policy explain`.
#[derive(Args, Debug)]
pub struct PolicyExplainArgs {
    /// A policy, or a directory of policies
    #[arg(long, value_name = "PATH", required = true)]
    pub policy: Vec<PathBuf>,
    /// Applies this environment of the policies
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// The request's method [default: POST with a body, else GET]
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub method: Option<String>,
    /// A header, `Name: value`; repeatable
    #[arg(long, short = 'H', value_name = "HEADER")]
    pub header: Vec<String>,
    /// Who asks, wherever the policy takes that from
    #[arg(long, value_name = "NAME")]
    pub caller: Option<String>,
    /// A file with the body; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// A file with the upstream's answer, to be explained, too
    #[arg(long, value_name = "FILE")]
    pub response: Option<PathBuf>,
    /// A header of that answer; repeatable [default: Content-Type: application/json]
    #[arg(long, value_name = "HEADER", requires = "response")]
    pub response_header: Vec<String>,
    /// Shows the values themselves
    #[arg(long)]
    pub show_values: bool,
    /// Host, path and query: api.example.com/v1/customers/7?full=1; a scheme before it is ignored
    #[arg(value_name = "REQUEST")]
    pub request: String,
}

/// `fieldveil policy coverage`.
#[derive(Args, Debug)]
pub struct PolicyCoverageArgs {
    /// A policy, or a directory of policies
    #[arg(long, value_name = "PATH", required = true)]
    pub policy: Vec<PathBuf>,
    /// The route whose rules are asked; needed unless there is only one that has some
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Which of its rules
    #[arg(long, value_enum, default_value_t)]
    pub side: CoverageSide,
    /// Ends with 1 if less than this percentage of the values is named
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub fail_under: Option<u8>,
    /// Files with sample bodies, one JSON document each
    #[arg(required = true, value_name = "BODY")]
    pub bodies: Vec<PathBuf>,
}

/// What `policy coverage --side` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CoverageSide {
    /// Those for requests
    #[default]
    Request,
    /// Those for responses
    Response,
}

/// `fieldveil policy diff`.
#[derive(Args, Debug)]
pub struct PolicyDiffArgs {
    /// Applies this environment of both
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// The policy as it was, or a directory of policies
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// As it will be
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
}

/// `fieldveil policy fmt`.
#[derive(Args, Debug)]
pub struct PolicyFmtArgs {
    /// Files, and directories that are searched for *.yaml, tests beside policies among them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Changes nothing: shows what would change, and ends with 1 if something would
    #[arg(long)]
    pub check: bool,
}

/// `fieldveil policy schema`.
#[derive(Args, Debug)]
pub struct PolicySchemaArgs {
    /// Of which files
    #[arg(value_enum, default_value_t)]
    pub of: SchemaOf,
}

/// What `policy schema` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// Policies
    #[default]
    Policy,
    /// Tests of policies
    Test,
}
