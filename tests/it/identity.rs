//! Who asks: every kind of credential against a cloud that recomputes signatures, issues tokens and locks keys.

use std::time::Duration;

use jobwatch::simulator::Fault;

use crate::world::{World, failed, job, said, soon};

const KEY: &str = "SIMULATEDKEY";
const SECRET: &str = "simulated-secret";

fn ak_sk(world: &World, secret: &str) -> &'static str {
    world.write("ak", KEY);
    world.write("sk", secret);
    r#"{ kind = "ak_sk", access_key = { file = "ak" }, secret_key = { file = "sk" } }"#
}

/// The agent sees the source with these credentials, and goes on seeing it.
async fn sees(world: &World) {
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "real")]);
    soon("the webhook", world.inbox.next(0)).await;
    let log = service.log();
    assert!(!log.contains("no complete listing"), "{log}");
    service.signal("TERM");
    assert!(service.ended().await.success());
}

#[tokio::test]
async fn requests_signed_with_an_access_key_are_accepted_by_a_server_that_recomputes_them() {
    let world = World::new().await;
    let credentials = ak_sk(&world, SECRET);
    // 320 jobs: the status filter, several pages and the single-job call are signed too.
    world.identify(credentials, "strategy = \"incremental\"");
    let mut jobs: Vec<_> = (0..320).map(|n| job(&format!("j{n:03}"), "Success", 1)).collect();
    jobs[7] = job("j007", "Running", 1);
    world.swr.set_jobs(jobs.clone());
    let _service = world.watched().await;
    jobs[7] = failed("j007", 2, "real");
    world.swr.set_jobs(jobs);
    soon("the webhook", world.inbox.next(0)).await;
    assert_eq!(world.swr.accounts().refused, 0);
}

#[tokio::test]
async fn a_wrong_secret_is_tried_once_by_all_sources_together_and_then_rests() {
    let world = World::new().await;
    let credentials = ak_sk(&world, "wrong-secret");
    world.identify(credentials, "");
    let mut config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    for n in 0..19 {
        config += &format!(
            "[[source]]\nname = \"s{n}\"\nkind = \"swr\"\nendpoint = \"http://{}\"\nproject_id = \"p1\"\npoll_every = \"100ms\"\ncredentials = {credentials}\n",
            world.cloud
        );
    }
    world.write("jobwatch.toml", &config);
    let mut service = world.run();
    let line = service.logged_times("no complete listing", 20).await;
    assert!(line.contains("rests for another") || line.contains("is left alone for 6 min"), "{line}");
    let log = service.log();
    assert!(log.contains("verify aksk signature fail") && log.contains("SIMU…"), "{log}");
    assert!(log.contains("its id and its secret belong together") && !log.contains("a token lasts"), "{log}");
    assert!(!log.contains("wrong-secret") && !log.contains("canonicalRequest"), "{log}");
    assert_eq!(world.swr.accounts().refused, 1, "five more would have locked the key for everybody");
}

#[tokio::test]
async fn a_key_that_is_replaced_in_its_file_is_taken_up() {
    let world = World::new().await;
    world.write("token", "an-old-token");
    let mut service = world.run();
    service.logged("HTTP 401").await;
    world.write("token", crate::world::TOKEN);
    service.logged("baseline").await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_noticed_corrected_and_told() {
    for ahead in [1_200, -3_000] {
        let world = World::new().await;
        let credentials = ak_sk(&world, SECRET);
        world.identify(credentials, "");
        world.swr.accounts().clock_ahead = ahead;
        let mut service = world.watched().await;
        let told = service.logged("this machine's clock is").await;
        let words = if ahead > 0 { "min behind" } else { "min ahead of" };
        assert!(told.contains(words) && told.contains("set the clock (NTP)"), "{told}");
        assert!(world.swr.accounts().refused <= 1, "one refusal taught it the time");
    }
}

fn password(world: &World, word: &str) -> String {
    world.write("password", word);
    format!(
        r#"{{ kind = "password", user = "watcher", domain = "example", password = {{ file = "password" }}, iam_endpoint = "http://{}" }}"#,
        world.cloud
    )
}

#[tokio::test]
async fn a_password_gives_a_token_that_several_sources_share() {
    let world = World::new().await;
    let credentials = password(&world, "simulated-password");
    world.identify(&credentials, "");
    let config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    let at = config.find("[[source]]").unwrap();
    let second = config[at..config.find("[receiver").unwrap()].replace("\"prod\"", "\"more\"");
    world.write("jobwatch.toml", &format!("{config}\n{second}"));
    let mut service = world.run();
    service.logged_times("baseline", 2).await;
    assert_eq!(world.swr.accounts().issued, 1);
    assert!(!service.log().contains("simulated-password") && !service.log().contains("issued-token"));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let world = World::new().await;
    let credentials = password(&world, "simulated-password");
    world.identify(&credentials, "");
    world.swr.accounts().lifetime = Duration::from_secs(4);
    let service = world.watched().await;
    let renewals = async {
        while world.swr.accounts().issued < 3 {
            tokio::task::yield_now().await;
        }
    };
    soon("two renewals", renewals).await;
    assert!(!service.log().contains("no complete listing"), "renewed before they ended: {}", service.log());
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_then_rests() {
    let world = World::new().await;
    let credentials = password(&world, "wrong-password");
    world.identify(&credentials, "");
    let mut service = world.run();
    let line = service.logged("no complete listing").await;
    assert!(
        line.contains("IAM gave no token: HTTP 401") && line.contains("The username or password is wrong"),
        "{line}"
    );
    let requests = world.swr.requests();
    assert_eq!((world.swr.accounts().logins_refused, requests), (1, 0));
    assert!(!service.log().contains("wrong-password"));
}

#[tokio::test]
async fn a_machine_gives_its_key_with_and_without_session_tokens() {
    for sessions in [true, false] {
        let world = World::new().await;
        let metadata = format!("{{ kind = \"metadata\", endpoint = \"http://{}\" }}", world.cloud);
        world.identify(&metadata, "");
        world.swr.accounts().sessions = sessions;
        world.swr.accounts().lifetime = Duration::from_secs(3);
        sees(&world).await;
        assert_eq!(world.swr.accounts().refused, 0, "temporary keys are renewed before they end");
    }
}

#[tokio::test]
async fn a_machine_without_an_agency_is_told_so() {
    let world = World::new().await;
    world.identify(&format!("{{ kind = \"metadata\", endpoint = \"http://{}\" }}", world.cloud), "");
    world.swr.accounts().agency = false;
    let line = world.run().logged("no complete listing").await;
    assert!(line.contains("this machine has no agency"), "{line}");
}

#[tokio::test]
async fn a_pod_gives_its_identity() {
    let mut world = World::new().await;
    world.write("pod-token", "pod-token");
    world.identify("{ kind = \"metadata\" }", "");
    world.environment = vec![
        ("HC_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/pod-identity", world.cloud)),
        ("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", world.path("pod-token").display().to_string()),
    ];
    sees(&world).await;
}

#[tokio::test]
async fn auto_takes_the_environment_then_the_profile_then_the_machine_and_check_says_which() {
    let mut world = World::new().await;
    world.identify("{ kind = \"auto\" }", "");
    let home = world.path("home");
    std::fs::create_dir_all(home.join(".huaweicloud")).unwrap();
    world.environment = vec![("HOME", home.display().to_string())];
    let (out, _) = said(&world.jobwatch(&["check", "-v"]).await);
    assert!(out.contains("source prod: no HUAWEICLOUD_SDK_AK in the environment and no profile file"), "{out}");
    world.write("home/.huaweicloud/credentials", &format!("[basic]\nak = {KEY}\nsk = {SECRET}\n"));
    let (out, _) = said(&world.jobwatch(&["check", "-v"]).await);
    assert!(out.contains("source prod: the access key SIMU… of the profile file"), "{out}");
    sees(&world).await;
    world.environment.push(("HUAWEICLOUD_SDK_AK", "OTHERKEY".into()));
    let (_, errors) = said(&world.jobwatch(&["check"]).await);
    assert!(errors.contains("only one of HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK"), "{errors}");
    world.environment.push(("HUAWEICLOUD_SDK_SK", "other-secret".into()));
    let (out, errors) = said(&world.jobwatch(&["check", "-v"]).await);
    assert!(out.contains("the access key OTHE… of the environment (HUAWEICLOUD_SDK_AK)"), "{out}");
    assert!(!out.contains("other-secret") && !errors.contains("other-secret"));
}

#[tokio::test]
async fn a_profile_file_that_is_no_profile_is_refused_without_showing_it() {
    let mut world = World::new().await;
    world.identify("{ kind = \"auto\" }", "");
    world.write("profile", "[basic]\nak = A\nsecret = canary-4711\n");
    world.environment = vec![("HUAWEICLOUD_SDK_CREDENTIALS_FILE", world.path("profile").display().to_string())];
    let (out, errors) = said(&world.jobwatch(&["check"]).await);
    assert!(errors.contains("has no ak and sk in [basic]"), "{errors}");
    assert!(!format!("{out}{errors}").contains("canary-4711"));
}

#[tokio::test]
async fn a_refusal_is_explained_by_sts_where_that_is_allowed_and_by_a_command_where_not() {
    let world = World::new().await;
    let credentials = ak_sk(&world, SECRET);
    let sts = format!("region = \"ap-southeast-3\"\nsts_endpoint = \"http://{}\"", world.cloud);
    world.identify(credentials, &sts);
    world.swr.set_fault(Some(Fault::Forbidden));
    let line = world.run().logged("no complete listing").await;
    assert!(line.contains("swr:instance:listJobs; STS explains: implicit deny by identity-based policy"), "{line}");
    assert!(line.contains("user name watcher"), "{line}");
    world.swr.accounts().decode = false;
    let line = world.run().logged("no complete listing").await;
    let command = "hcloud STS DecodeAuthorizationMessage --cli-region=ap-southeast-3 --encoded_message=YXAtc29";
    assert!(line.contains(command), "{line}");
}
