//! What a shell is given at <TAB>, by the real shells; and the manual pages.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::world::{World, failed, job, rule, said, soon};

/// Completes the last of the words as bash does, with the script that the program prints.
const BASH: &str = r#"
source <("$0" completions bash) || exit 9
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); word=${COMP_WORDS[COMP_CWORD]}
[[ $word == = ]] && word=
_jobwatch "$0" "$word"
printf '%s\n' "${COMPREPLY[@]}"
"#;

type Words = BTreeSet<String>;

fn words(text: &str) -> Words {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

impl World {
    /// What bash offers. Nothing may be said beside it.
    async fn completes(&self, line: &[&str]) -> Words {
        let output = self.jobwatch_under(&["bash", "-c", BASH], line).await;
        let (offered, complaint) = said(&output);
        assert_eq!((output.status.code(), complaint.as_str()), (Some(0), ""), "{line:?}");
        words(&offered)
    }
}

/// `./test` installs what is asked for here; elsewhere less is tested.
fn is_there(program: &str) -> bool {
    ["/usr/bin", "/bin"].iter().any(|place| Path::new(place).join(program).exists())
}

#[tokio::test]
async fn bash_completes_commands_options_and_the_names_in_the_configuration() {
    let world = World::new().await;
    world.write("rules/more.toml", &rule("stuck", "Failed", "ops"));
    for (line, offered) in [
        (&["jobwatch", "del"] as &[&str], "deliveries"),
        (&["jobwatch", "rules", ""], "test explain backtest help"),
        (&["jobwatch", "poll", "--dr"], "--dry-run"),
        (&["jobwatch", "poll", "--format", ""], "text json"),
        (&["jobwatch", "poll", "--source", ""], "prod"),
        (&["jobwatch", "poll", "--source", "=", "p"], "prod"),
        (&["jobwatch", "poll", "--source", "="], "prod"),
        (&["jobwatch", "probe", "source", "x"], ""),
        (&["jobwatch", "probe", "receiver", ""], "oncall ops"),
        (&["jobwatch", "deliveries", "list", "--receiver", "on"], "oncall"),
        (&["jobwatch", "rules", "explain", "--rule", ""], "failed stuck"),
        (&["jobwatch", "check", "--config", "jobw"], "jobwatch.toml"),
    ] {
        assert_eq!(world.completes(line).await, words(offered), "{line:?}");
    }
}

#[tokio::test]
async fn completing_reads_the_configuration_that_the_line_names_and_no_other() {
    let mut world = World::new().await;
    std::fs::create_dir(world.path("away")).unwrap();
    world.write("away/other.toml", "[[source]]\nname = \"elsewhere\"\n[receiver.pager]\nkind = \"pagerduty\"\n");
    let away = world.path("away/other.toml").display().to_string();
    for line in [
        &["jobwatch", "--config", "away/other.toml", "poll", "--source", ""] as &[&str],
        &["jobwatch", "--config", "=", &away, "poll", "--source", ""],
        &["jobwatch", "--config=away/other.toml", "poll", "--source", ""],
        &["jobwatch", "poll", "--config", "jobwatch.toml", "--config", "~/other.toml", "--source", ""],
    ] {
        world.environment = vec![("HOME", world.path("away").display().to_string())];
        assert_eq!(world.completes(line).await, words("elsewhere"), "{line:?}");
    }
    world.environment = vec![("JOBWATCH_CONFIG", away.clone())];
    assert_eq!(world.completes(&["jobwatch", "probe", "receiver", ""]).await, words("pager"));
    let line = ["jobwatch", "--config", "jobwatch.toml", "probe", "receiver", ""];
    assert_eq!(world.completes(&line).await, words("oncall ops"));
}

#[tokio::test]
async fn completing_never_complains_never_waits_and_needs_no_secret() {
    let world = World::new().await;
    let source = ["jobwatch", "poll", "--source", ""];
    // A pipe that nobody writes into: whoever opens it waits for ever.
    for secret in ["token", "url", "secret"] {
        std::fs::remove_file(world.path(secret)).unwrap();
        assert!(world.jobwatch_under(&["mkfifo", secret], &[]).await.status.code().is_some());
    }
    assert_eq!(world.completes(&source).await, words("prod"));
    let broken = world.config("", "").replace("[agent]", "[agent]\nstat = 3") + "\n[receiver.half\n";
    world.write("jobwatch.toml", &broken);
    assert_eq!(world.completes(&source).await, words("prod"));
    world.write("rules/failed.toml", "[[rule]]\nid = \"fine\"\nwhen = { to = ");
    assert_eq!(world.completes(&["jobwatch", "rules", "explain", "--rule", ""]).await, words("fine"));
    for bad in ["prod", "$(touch pwned)", "a b", "`x`", "*"] {
        world.write("jobwatch.toml", &format!("[[source]]\nname = \"{bad}\"\n"));
        assert_eq!(world.completes(&source).await, words(if bad == "prod" { bad } else { "" }), "{bad}");
    }
    assert!(!world.path("pwned").exists());
    std::fs::remove_file(world.path("jobwatch.toml")).unwrap();
    assert_eq!(world.completes(&source).await, words(""));
    world.jobwatch_under(&["mkfifo", "jobwatch.toml"], &[]).await;
    assert_eq!(world.completes(&source).await, words(""));
}

#[tokio::test]
async fn who_does_not_complete_is_not_hindered_and_an_unknown_shell_hears_nothing() {
    let mut world = World::new().await;
    world.environment = vec![("JOBWATCH_COMPLETE", "bash".into())];
    assert!(said(&world.jobwatch(&["--version"]).await).0.starts_with("jobwatch "));
    world.environment = vec![("JOBWATCH_COMPLETE", "tcsh".into())];
    let output = world.jobwatch(&["--", "jobwatch", ""]).await;
    assert_eq!((output.status.code(), said(&output)), (Some(0), (String::new(), String::new())));
}

#[tokio::test]
async fn ids_are_completed_from_the_state() {
    let world = World::new().await;
    let service = world.watched().await;
    world.swr.set_jobs(vec![job("a", "Running", 1), job("b", "Running", 1)]);
    world.swr.set_jobs(vec![failed("a", 2, "no quota"), failed("b", 2, "no quota")]);
    soon("both to be told", world.inbox.next(1)).await;
    let (list, _) = said(&world.jobwatch(&["deliveries", "list", "--format", "json"]).await);
    let list: Value = serde_json::from_str(&list).unwrap();
    let ids: Words = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(world.completes(&["jobwatch", "deliveries", "show", ""]).await, ids);
    let first = ids.first().unwrap();
    assert_eq!(world.completes(&["jobwatch", "deliveries", "drop", &first[..12]]).await, words(first));
    world.jobwatch(&["silence", "add", "rule=failed", "--for", "1h", "--comment", "x", "--author", "me"]).await;
    assert_eq!(world.completes(&["jobwatch", "silence", "expire", ""]).await.len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn zsh_and_fish_read_their_scripts_and_fish_completes() {
    let world = World::new().await;
    for (shell, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        if is_there(shell) {
            world.write("script", &said(&world.jobwatch(&["completions", shell]).await).0);
            let output = world.jobwatch_under(&[shell, check, "script"], &[]).await;
            assert_eq!((output.status.code(), said(&output).1), (Some(0), String::new()), "{shell}");
        }
    }
    if is_there("fish") {
        // fish calls what is typed first, so the binary is typed by its path, and completed by its name.
        let ask = "$argv[1] completions fish | source; complete -C \"$argv[1] probe receiver o\"";
        let output = world.jobwatch_under(&["fish", "--no-config", "-c", ask], &[]).await;
        assert_eq!(said(&output), ("oncall\twebhook\nops\temail\n".into(), String::new()));
    }
}

/// zsh completes only for who types: a terminal, a line, and a TAB.
#[tokio::test]
async fn zsh_completes_at_a_terminal() {
    if !is_there("zsh") || !is_there("python3") {
        return;
    }
    let world = World::new().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/zsh_types.py");
    let output =
        world.jobwatch_under(&["/usr/bin/python3", script], &["probe receiver on\t", "receiver oncall "]).await;
    let (screen, complaint) = said(&output);
    assert!(screen.contains("probe receiver oncall "), "{screen}\n{complaint}");
}

#[tokio::test]
async fn every_manual_page_is_made_and_groff_has_nothing_against_it() {
    let world = World::new().await;
    let output = world.jobwatch(&["man", "--dir", "pages/man1"]).await;
    assert_eq!((output.status.code(), said(&output)), (Some(0), (String::new(), String::new())));
    let pages = std::fs::read_dir(world.path("pages/man1")).unwrap();
    let pages: Words = pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for page in ["jobwatch.1", "jobwatch-run.1", "jobwatch-rules-explain.1", "jobwatch-man.1"] {
        assert!(pages.contains(page), "{page} of {pages:?}");
    }
    let (one, _) = said(&world.jobwatch(&["man", "rules", "explain"]).await);
    assert_eq!(one, std::fs::read_to_string(world.path("pages/man1/jobwatch-rules-explain.1")).unwrap());
    let (_, mistake) = said(&world.jobwatch(&["man", "rulse"]).await);
    assert!(mistake.contains("did you mean `rules`?"), "{mistake}");
    for page in &pages {
        let path = world.path("pages/man1").join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.is_ascii(), "{page}");
        if is_there("groff") {
            let output =
                world.jobwatch_under(&["sh", "-c", "groff -man -Tutf8 -ww \"$1\""], &[path.to_str().unwrap()]).await;
            assert_eq!(said(&output).1, "", "{page}");
        }
    }
}
