//! `jobwatch simulate`: the SWR simulator alone.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{Exit, say_report};
use crate::clock::Clock;
use crate::simulator::{Scenario, Swr, serve};

#[derive(Debug, clap::Args)]
pub(super) struct Simulate {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9478")]
    listen: SocketAddr,
    /// What happens [default: the demo's story].
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

impl Simulate {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let scenario = match &self.scenario {
            None => Scenario::demo(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                match Scenario::read(&text, path) {
                    Ok(scenario) => scenario,
                    Err(report) => {
                        say_report(&report)?;
                        return Ok(Exit::No);
                    }
                }
            }
        };
        if !self.listen.ip().is_loopback() {
            anyhow::bail!(
                "{} is not a loopback address: the simulator is a toy and listens to this machine alone",
                self.listen.ip()
            );
        }
        let listener = TcpListener::bind(self.listen).await.with_context(|| self.listen.to_string())?;
        let (address, clock) = (listener.local_addr()?, Clock::system());
        let mut out = anstream::stdout();
        writeln!(out, "the SWR API answers at http://{address}; a source that watches it:\n")?;
        writeln!(out, "[[source]]\nname = \"simulated\"\nkind = \"swr\"\nendpoint = \"http://{address}\"")?;
        writeln!(out, "project_id = \"{}\"\npoll_every = \"1s\"", scenario.project_id())?;
        writeln!(
            out,
            "credentials = {{ kind = \"token\", token = {{ env = \"TOKEN\" }} }}   # TOKEN={}",
            scenario.token()
        )?;
        writeln!(out, "\nCtrl-C ends it.")?;
        out.flush()?;
        let swr = Swr::new(scenario, move || clock.now());
        let stop = async {
            // Without a signal handler the process just ends: that is a stop as well.
            drop(tokio::signal::ctrl_c().await);
        };
        serve(listener, swr.router(), stop).await;
        Ok(Exit::Done)
    }
}
