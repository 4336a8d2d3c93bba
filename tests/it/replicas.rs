//! Several agents on one database, each a process of its own.

use std::collections::BTreeSet;

use jobwatch::simulator::Fault;
use serde_json::Value;

use crate::postgres::{Cluster, PASSWORD, ROLE};
use crate::world::{World, failed, job, rule, said, soon};

/// A world whose state is in a database, with four sources that list the same jobs.
async fn world(cluster: &Cluster, agent: &str) -> World {
    let database = cluster.database().await;
    let world = World::new().await;
    world.write("database-password", PASSWORD);
    let url = format!("postgres://{ROLE}@{}/{database}", cluster.address());
    let state = format!("state = \"{url}\"\nstate_password = {{ file = \"database-password\" }}\n{agent}");
    let config = world.config("poll_every = \"100ms\"", "").replace("state = \"sqlite:state.db\"", &state);
    let (start, end) = (config.find("[[source]]").unwrap(), config.find("[receiver.oncall]").unwrap());
    let source = &config[start..end];
    let others: String = ["b", "c", "d"].map(|name| source.replace("\"prod\"", &format!("{name:?}"))).concat();
    world.write("jobwatch.toml", &format!("{config}\n{others}"));
    world
}

/// Which sources each replica that lives polls.
async fn shares(world: &World) -> Vec<Vec<String>> {
    let output = world.jobwatch(&["replicas", "--format", "json"]).await;
    let replicas: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let names = |replica: &Value| serde_json::from_value(replica["holds"].clone()).unwrap();
    replicas.iter().filter(|replica| replica["living"] == true).map(names).collect()
}

/// What on-call heard, as source and job, and under which ids.
fn heard(world: &World) -> (Vec<String>, BTreeSet<String>) {
    let received = world.inbox.received();
    let about = received.iter().map(|message| {
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        format!("{} {}", body["data"]["source"]["name"].as_str().unwrap(), body["subject"].as_str().unwrap())
    });
    let mut about: Vec<String> = about.collect();
    about.sort();
    let ids = received.iter().map(|message| message.header("webhook-id").to_owned()).collect();
    (about, ids)
}

#[tokio::test]
async fn replicas_share_the_sources_do_together_what_is_asked_of_one_and_hand_over_at_once() {
    let cluster = Cluster::start().await;
    // No lease ends by itself within this story.
    let world = world(&cluster, "lease = \"5m\"").await;
    world.swr.set_jobs(vec![job("j1", "Running", 1)]);
    let mut first = world.run();
    first.logged("held=4").await;
    first.logged_times("baseline", 4).await;
    let mut second = world.run();
    second.logged("held=2").await;
    first.logged("held=2").await;
    assert_eq!(shares(&world).await.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);

    // Each tells of what it sees; each failure is told once.
    world.swr.set_jobs(vec![failed("j1", 2, "no capacity")]);
    soon("each source's failure", world.inbox.reached(4)).await;
    let (about, ids) = heard(&world);
    assert_eq!(about, ["b j1", "c j1", "d j1", "prod j1"]);
    assert_eq!(ids.len(), 4);

    // One command, and both have done it.
    world.write("rules/ended.toml", &rule("ended", "Success", "oncall"));
    let (out, errors) = said(&world.jobwatch(&["reload"]).await);
    assert_eq!(out.matches("2 rules are in force").count(), 2, "{out}{errors}");
    world.write("rules/ended.toml", "schema = 1\n[[rule]]\nid = \"ended\"\nwhen = { to = \"Fialed\" }\n");
    let output = world.jobwatch(&["reload"]).await;
    let (_, errors) = said(&output);
    assert_eq!((output.status.code(), errors.matches("refused it").count()), (Some(3), 2), "{errors}");
    world.write("rules/ended.toml", &rule("ended", "Success", "oncall"));
    assert!(world.jobwatch(&["silence", "add", "id=j1", "--for", "1h", "--comment", "known"]).await.status.success());

    // Whoever stops hands his over; a silence is everybody's.
    first.stop().await;
    second.logged("held=4").await;
    world.swr.set_jobs(vec![job("j1", "Success", 3), failed("j2", 3, "no capacity")]);
    soon("each source's second failure", world.inbox.reached(8)).await;
    let (about, ids) = heard(&world);
    assert_eq!(about.iter().filter(|about| about.ends_with("j2")).count(), 4, "{about:?}");
    assert_eq!((about.len(), ids.len()), (8, 8));
    second.stop().await;
    assert!(shares(&world).await.is_empty());
}

#[tokio::test]
async fn who_is_killed_or_paused_is_replaced_and_who_comes_back_late_writes_nothing_old() {
    let cluster = Cluster::start().await;
    let world = world(&cluster, "lease = \"2s\"").await;
    world.swr.set_jobs(vec![job("j1", "Running", 1)]);
    let mut first = world.run();
    first.logged_times("baseline", 4).await;
    let mut second = world.run();
    second.logged("held=2").await;
    first.signal("STOP");
    second.logged("held=4").await;
    world.swr.set_jobs(vec![failed("j1", 2, "no capacity")]);
    soon("each source's failure", world.inbox.reached(4)).await;
    first.signal("CONT");
    // It takes its share again, under leases that begin anew.
    second.logged_times("held=2", 2).await;
    first.logged_times("held=2", 2).await;
    world.swr.set_jobs(vec![failed("j1", 2, "no capacity"), failed("j2", 3, "no capacity")]);
    soon("each source's second failure", world.inbox.reached(8)).await;
    second.kill().await;
    first.logged_times("held=4", 2).await;
    world.swr.set_jobs(vec![
        failed("j3", 4, "no capacity"),
        failed("j1", 2, "no capacity"),
        failed("j2", 3, "no capacity"),
    ]);
    soon("each source's third failure", world.inbox.reached(12)).await;
    let (about, ids) = heard(&world);
    let each = |job: &str| ["b", "c", "d", "prod"].map(|source| format!("{source} {job}"));
    let mut all = [each("j1"), each("j2"), each("j3")].concat();
    all.sort();
    assert_eq!(about, all);
    assert_eq!(ids.len(), 12);
    first.stop().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for_and_nothing_is_lost_or_told_twice() {
    let mut cluster = Cluster::start().await;
    let world = world(&cluster, "lease = \"2s\"").await;
    world.swr.set_jobs(vec![job("j1", "Running", 1)]);
    let mut first = world.run();
    first.logged_times("baseline", 4).await;
    let mut second = world.run();
    second.logged("held=2").await;
    cluster.stop().await;
    first.logged("keeping the leases").await;
    second.logged("keeping the leases").await;
    world.swr.set_jobs(vec![failed("j1", 2, "no capacity")]);
    // Who does not know that he holds a lease polls nothing.
    first.logged("held=0").await;
    second.logged("held=0").await;
    assert_eq!(world.inbox.count(), 0);
    cluster.run().await;
    soon("each source's failure", world.inbox.reached(4)).await;
    let (about, ids) = heard(&world);
    assert_eq!((about, ids.len()), (["b", "c", "d", "prod"].map(|source| format!("{source} j1")).to_vec(), 4));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_no_replica_sees_is_told_in_one_message_and_so_is_its_end() {
    let cluster = Cluster::start().await;
    let world = world(&cluster, "lease = \"30s\"\nblind_after = \"1s\"").await;
    let (mut first, mut second) = (world.run(), world.run());
    first.logged("held=2").await;
    second.logged("held=2").await;
    world.swr.set_fault(Some(Fault::ServerError));
    let blind = soon("a mail", world.mailbox.next(0)).await;
    assert!(blind.data.contains("4 sources: no complete listing"), "{}", blind.data);
    world.swr.set_fault(None);
    let restored = soon("a mail", world.mailbox.next(1)).await;
    assert!(restored.data.contains("4 sources"), "{}", restored.data);
    first.stop().await;
    second.stop().await;
    assert_eq!(world.mailbox.mails().len(), 2);
}

#[tokio::test]
async fn replicas_with_different_rules_are_told_of_and_so_is_that_they_agree_again() {
    let cluster = Cluster::start().await;
    let world = world(&cluster, "lease = \"2s\"").await;
    let mut first = world.run();
    first.logged("held=4").await;
    // The second one has a rule that the first has not read.
    world.write("rules/ended.toml", &rule("ended", "Success", "oncall"));
    let mut second = world.run();
    second.logged("held=2").await;
    let differ = soon("a mail", world.mailbox.next(0)).await;
    assert!(differ.data.contains("2 replicas do not have the same rules"), "{}", differ.data);
    let (text, _) = said(&world.jobwatch(&["replicas"]).await);
    assert!(text.contains("differ"), "{text}");
    assert!(world.jobwatch(&["reload"]).await.status.success());
    let agree = soon("a mail", world.mailbox.next(1)).await;
    assert!(agree.data.contains("2 replicas have the same rules"), "{}", agree.data);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn the_password_of_the_database_is_seen_nowhere() {
    let cluster = Cluster::start().await;
    let world = world(&cluster, "lease = \"2s\"").await;
    world.swr.set_jobs(vec![job("j1", "Running", 1)]);
    let mut service = world.run_with(&["-vv"]);
    service.logged_times("baseline", 4).await;
    world.swr.set_jobs(vec![failed("j1", 2, "no capacity")]);
    soon("each source's failure", world.inbox.reached(4)).await;
    let mut seen = Vec::new();
    for arguments in
        [&["replicas"][..], &["doctor"], &["state", "info"], &["check", "-v"], &["jobs"], &["state", "backup", "x"]]
    {
        let (out, errors) = said(&world.jobwatch(arguments).await);
        seen.push((arguments.join(" "), out + &errors));
    }
    let proc = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", service.id())).unwrap();
    seen.push(("the process list".into(), proc("cmdline") + &proc("environ")));
    // A database that refuses it says so without repeating it, and so does one that is away.
    world.write("database-password", &format!("{PASSWORD}-wrong"));
    let (out, errors) = said(&world.jobwatch(&["jobs"]).await);
    assert!(errors.contains("password authentication failed"), "{errors}");
    seen.push(("a wrong password".into(), out + &errors));
    seen.push(("the log".into(), service.log()));
    for (what, text) in seen {
        assert!(!text.contains(PASSWORD), "{what}: {text}");
    }
    service.stop().await;
}
