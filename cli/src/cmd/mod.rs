//! The command line and its commands, one file each; each file defines its arguments and `run`.

mod audit;
mod backup;
mod completions;
mod compose_files;
mod console;
mod cp;
mod deploy;
mod drain;
mod events;
mod exec;
mod export;
mod history;
mod image;
mod inspect;
mod job;
mod leave;
mod login;
mod logs;
mod man;
mod node;
mod nodes;
mod notify;
mod plan;
mod project;
mod projects;
mod ps;
mod rebalance;
mod restart;
mod rm;
mod run;
mod scale;
mod services;
mod stats;
mod status;
mod system;
mod target;
mod token;
mod top;
mod trust;
mod upgrade;
mod upload;
mod volume;
mod voters;
mod wait;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::app::App;
use crate::args::Global;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  vc --token /var/lib/vc/admin.token nodes   use the token that 'vc-node init' wrote
  vc login admin.token                       store it: --token is no longer needed
  vc deploy compose.yaml --wait              deploy services and wait until they run
  vc ps                                      list instances and their nodes
  vc --peer 10.0.0.1 status                  connect to this node

Any node will do. The token contains addresses of nodes; vc also tries those of earlier sessions, then the local
network (mDNS). Exit codes: 0 success, 1 refused or failed, 2 wrong usage.";

/// Control a Virtual Cluster from any node
#[derive(Debug, Parser)]
#[command(name = "vc", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// The global options.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deploy the services of a Compose file
    Deploy(deploy::Args),
    /// Show where the services of a Compose file would be placed, and why
    Plan(plan::Args),
    /// List services
    Services(services::Args),
    /// List instances
    Ps(ps::Args),
    /// Show what instances use: CPU, memory, network, disk
    Stats(stats::Args),
    /// Watch nodes, services and instances on the terminal
    Top(top::Args),
    /// List nodes
    Nodes(nodes::Args),
    /// Show the state of the cluster and its problems
    Status(status::Args),
    /// Show a service with its instances and specification
    Inspect(inspect::Args),
    /// Replace the instances of services
    Restart(restart::RestartArgs),
    /// List the versions of a service
    History(history::Args),
    /// Return a service to an earlier version
    Rollback(restart::RollbackArgs),
    /// List jobs and their runs, begin and stop runs
    Job(job::Args),
    /// Change the number of replicas of services
    Scale(scale::Args),
    /// Remove services
    Rm(rm::Args),
    /// Show the logs of a service
    Logs(logs::Args),
    /// Show who did what, from where, and what was refused
    Audit(audit::Args),
    /// Show recent events
    Events(events::Args),
    /// Run a command once, on a node that has room for it
    Run(run::Args),
    /// Write what is deployed as Compose files
    Export(export::Args),
    /// Run a command in an instance
    Exec(exec::Args),
    /// Copy files to or from an instance
    Cp(cp::Args),
    /// Move all instances off a node and place none on it
    Drain(drain::DrainArgs),
    /// Allow instances on a drained node again
    Undrain(drain::UndrainArgs),
    /// Spread instances evenly over the nodes
    Rebalance(rebalance::Args),
    /// Remove a node from the cluster permanently
    Leave(leave::Args),
    /// Revoke the membership of a node
    Node(node::Args),
    /// List projects, and say what their services may use of the hosts
    Project(projects::Args),
    /// List and remove named volumes
    Volume(volume::Args),
    /// Back the cluster up to a file, and check such files
    Backup(backup::Args),
    /// Push images to the cluster, list and remove them
    Image(image::Args),
    /// Show what the data of nodes takes on their disks
    System(system::Args),
    /// Open the console in a browser
    Console(console::Args),
    /// Create tokens for nodes and users
    Token(token::Args),
    /// Show and rotate the key that signs certificates of nodes
    Trust(trust::Args),
    /// Upgrade vc-node on all nodes, one after the other
    Upgrade(upgrade::Args),
    /// Send alerts of problems to URLs and commands
    Notify(notify::Args),
    /// List and change the nodes that grant leases of exclusive services
    Voters(voters::Args),
    /// Store a token for later commands
    Login(login::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Write the man pages
    #[command(hide = true)]
    Man(man::Args),
}

/// Runs a command.
pub(crate) async fn run(app: &App, command: Command) -> Result {
    match command {
        Command::Deploy(args) => args.run(app).await,
        Command::Plan(args) => args.run(app).await,
        Command::Services(args) => args.run(app).await,
        Command::Ps(args) => args.run(app).await,
        Command::Stats(args) => args.run(app).await,
        Command::Top(args) => args.run(app).await,
        Command::Nodes(args) => args.run(app).await,
        Command::Status(args) => args.run(app).await,
        Command::Job(args) => args.run(app).await,
        Command::Scale(args) => args.run(app).await,
        Command::Rm(args) => args.run(app).await,
        Command::Run(args) => args.run(app).await,
        Command::Logs(args) => args.run(app).await,
        Command::Audit(args) => args.run(app).await,
        Command::Events(args) => args.run(app).await,
        Command::Cp(args) => args.run(app).await,
        Command::Export(args) => args.run(app).await,
        Command::Exec(args) => args.run(app).await,
        Command::Drain(args) => args.run(app).await,
        Command::Undrain(args) => args.run(app).await,
        Command::Leave(args) => args.run(app).await,
        Command::Node(args) => args.run(app).await,
        Command::Rebalance(args) => args.run(app).await,
        Command::Inspect(args) => args.run(app).await,
        Command::Restart(args) => args.run(app).await,
        Command::History(args) => args.run(app).await,
        Command::Rollback(args) => args.run(app).await,
        Command::Project(args) => args.run(app).await,
        Command::Volume(args) => args.run(app).await,
        Command::Backup(args) => args.run(app).await,
        Command::Image(args) => args.run(app).await,
        Command::System(args) => args.run(app).await,
        Command::Console(args) => args.run(app).await,
        Command::Token(args) => args.run(app).await,
        Command::Trust(args) => args.run(app).await,
        Command::Upgrade(args) => args.run(app).await,
        Command::Notify(args) => args.run(app).await,
        Command::Voters(args) => args.run(app).await,
        Command::Login(args) => args.run(app),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(Cli::command()),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
#[path = "../../../tests/harness/documented.rs"]
mod documented;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> std::result::Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_command_lines_are_accepted() {
        for line in [
            "vc --token t nodes",
            "vc nodes --token t --output json",
            "vc --peer /ip4/10.0.0.1/tcp/4777 --peer 10.0.0.2 ps shop/web",
            "vc deploy compose.yaml -p shop --wait --timeout 90s",
            "vc deploy -",
            "vc deploy compose.yaml --dry-run --output json",
            "vc deploy compose.yaml --diff --wait",
            "vc plan compose.yaml --output json",
            "vc scale web=3 shop/db=1 --wait",
            "vc rm web shop/",
            "vc logs -f --tail 10 --since 1h30m web --replica 2",
            "vc exec web -- ls -l --output",
            "vc exec web ls -l",
            "vc exec -it shop/web.2 -- sh",
            "vc exec -i --replica 2 -e A=b=c -u 0:0 -w / web -- env",
            "vc cp web:/etc/hosts .",
            "vc cp ./site shop/web.2:/srv",
            "vc logs -t --no-prefix web.2",
            "vc drain attic",
            "vc drain attic --timeout 1h",
            "vc drain attic --no-wait",
            "vc undrain attic",
            "vc leave attic --timeout 1h",
            "vc leave attic --force",
            "vc rebalance --yes --no-wait",
            "vc inspect shop/web",
            "vc restart web api --wait",
            "vc rollback web --wait --timeout 1m",
            "vc project ls",
            "vc project allow shop devices host-paths=/srv/data,/srv/x",
            "vc project deny shop privileged",
            "vc token create --user ann --role deployer --project shop --project blog",
            "vc token create --user eve --logs",
            "vc inspect web --show-values",
            "vc volume ls",
            "vc volume rm shop/data",
            "vc token create --node",
            "vc token create --node attic",
            "vc token create --node --role worker --ttl 1h",
            "vc token create --node attic --worker --uses 5",
            "vc token create --user ada --role admin --ttl 7d",
            "vc token create --user phone --ttl 12h --browser",
            "vc console",
            "vc console --listen [::1]:8080 --no-open",
            "vc console --url https://console.example/ --qr",
            "vc nodes --addresses",
            "vc audit",
            "vc audit -f --user ann --service shop/web --since 1h",
            "vc audit --verify --output json",
            "vc events",
            "vc events -f --output json",
            "vc login admin.token",
            "vc completions zsh",
            "vc status",
            "vc stats",
            "vc top",
            "vc stats shop/web db.2 --node attic --no-stream --output json",
            "vc image push web:1 worker:1 --docker-host unix:///run/docker.sock",
            "vc image ls",
            "vc export shop",
            "vc export shop/web db --directory ./exported --force",
            "vc export -d ./exported",
            "vc backup cluster.vcb",
            "vc backup cluster.vcb --volumes",
            "vc backup cluster.vcb --volumes=shop/db,wiki --passphrase-file p --force",
            "vc backup verify cluster.vcb --passphrase-file -",
            "vc backup ls",
            "vc image rm web:1 worker:1",
            "vc image prune --dry-run",
            "vc image prune -y",
            "vc services",
            "vc system df --node attic",
            "vc notify ls",
            "vc notify add ops webhook http://10.0.0.9/x --kind disk --kind volume-lag --severity critical",
            "vc notify add chat webhook --url-file - --format slack --project shop",
            "vc notify add pager command --format text -- page -v ops",
            "vc notify rm ops",
            "vc notify test ops",
            "vc voters",
            "vc voters ls --output json",
            "vc voters add attic --timeout 30s",
            "vc voters remove attic --no-wait",
            "vc voters auto attic",
            "vc voters force attic desk -y",
            "vc upgrade vc-node_0.2.0_amd64.deb -y",
            "vc upgrade ./vc-node --node attic --node desk --pause 10m --timeout 1m --dry-run",
            "vc upgrade --back --node attic",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn the_command_lines_of_the_documentation_are_accepted() {
        let all = documented::commands("vc");
        assert!(all.len() > 100, "{}", all.len());
        for (page, words) in all {
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{page}: {words:?}: {error}");
            }
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "vc",
            "vc frobnicate",
            "vc cp web:/a",
            "vc cp web:a .",
            "vc exec web",
            "vc exec web --",
            "vc exec web.0 -- sh",
            "vc exec -e =x web -- sh",
            "vc deploy f --timeout 10s",
            "vc deploy f --dry-run --wait",
            "vc drain attic --no-wait --timeout 10s",
            "vc restart web --timeout 10s",
            "vc stats web.0",
            "vc scale web",
            "vc scale web=-1",
            "vc scale web=1001",
            "vc scale =3",
            "vc rm",
            "vc restart",
            "vc rollback web api",
            "vc volume rm data",
            "vc audit --verify --user ann",
            "vc token create --user ada --uses 2",
            "vc token create --node --uses 0",
            "vc token create --node --worker --role server",
            "vc project allow shop",
            "vc project allow shop host-paths=srv",
            "vc project allow shop root",
            "vc project deny Shop devices",
            "vc token create --node --project shop",
            "vc logs",
            "vc notify add ops",
            "vc notify add ops webhook",
            "vc notify add ops command",
            "vc notify add ops webhook http://a/ --kind fan",
            "vc notify add ops webhook http://a/ --format xml",
            "vc voters add",
            "vc voters force",
            "vc upgrade",
            "vc upgrade --back",
            "vc upgrade ./vc-node --back --node attic",
            "vc voters add attic --no-wait --timeout 1s",
            "vc image",
            "vc backup",
            "vc backup verify cluster.vcb --force",
            "vc image push",
            "vc image rm",
            "vc logs web --replica 0",
            "vc token create",
            "vc token create --node --user ada",
            "vc token create --node --browser",
            "vc token create --user Ada",
            "vc token create --user ada --role king",
            "vc token create --node --ttl 0s",
            "vc console --listen 0.0.0.0:80",
            "vc console --url http://console.example/",
            "vc console --url https://console.example/ --listen 127.0.0.1:1",
            "vc --output yaml ps",
            "vc --peer /ip4/10.0.0.1/sctp/1 ps",
            "vc --peer not:a:peer ps",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line} was accepted"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_has_a_help_with_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no description");
                if sub.has_subcommands() {
                    check(sub, &path);
                } else {
                    let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    // An argument may come between: 'vc notify add NAME webhook'.
                    let is_example = |line: &str| {
                        let mut words = line.split_whitespace();
                        path.split(' ').all(|word| words.any(|it| it == word))
                    };
                    assert!(help.lines().any(is_example), "{path} has no example");
                }
            }
        }
        check(&Cli::command(), "vc");
    }
}
