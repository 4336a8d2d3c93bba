//! A maildir: what is written where, and what happens when it cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jobwatch::agent::ReceiverSetup;
use jobwatch::model::delivery::Outcome;
use jobwatch::model::examination::Health;

use crate::kinds::Row;
use crate::said::{self, NOW};
use crate::{claimed, setup};

fn receiver(path: &Path) -> ReceiverSetup {
    let table = format!("path = \"{}\"\nto = \"oncall@example.org\"\n", path.display()).leak();
    let row =
        Row { kind: "maildir", table, accepts: (0, ""), refuses: &[], later: &[], bytes_max: 0, sound: |_, _| {} };
    setup(&row, "", "").unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn send(path: &Path) -> Outcome {
    let setup = receiver(path);
    setup.receiver.send(&claimed(&setup, &said::failed("quota 17 exceeded")), NOW).await.outcome
}

#[tokio::test]
async fn a_message_is_a_file_that_a_mail_program_can_read_and_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mail");
    let outcome = send(&path).await;
    let [name] = &names(&path.join("new"))[..] else { panic!("{outcome:?}") };
    assert_eq!(outcome, Outcome::Accepted { note: format!("new/{name}") });
    assert!(name.starts_with("msg_") && !name.contains(':'), "{name}");
    assert_eq!((names(&path.join("tmp")), names(&path.join("cur"))), (vec![], vec![]));
    let text = fs::read_to_string(path.join("new").join(name)).unwrap();
    let mail = mail_parser::MessageParser::default().parse(&text).unwrap();
    assert_eq!(mail.to().unwrap().first().unwrap().address(), Some("oncall@example.org"));
    assert_eq!(mail.subject(), Some("[jobwatch] prod-payments: CreateInstance"));
    assert!(mail.body_text(0).unwrap().contains("quota 17 exceeded"), "{text}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("new").join(name))), (0o700, 0o600));
}

#[tokio::test]
async fn a_second_attempt_replaces_the_first_and_leaves_alone_what_was_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mail");
    send(&path).await;
    let name = names(&path.join("new")).remove(0);
    fs::write(path.join("new").join(&name), "half").unwrap();
    send(&path).await;
    assert_eq!(names(&path.join("new")), [name.as_str()]);
    assert!(fs::read_to_string(path.join("new").join(&name)).unwrap().len() > 500, "it was written anew");
    fs::rename(path.join("new").join(&name), path.join("cur").join(format!("{name}:2,S"))).unwrap();
    let outcome = send(&path).await;
    assert_eq!(outcome, Outcome::Accepted { note: format!("cur/{name}:2,S is there already") });
    assert_eq!(names(&path.join("new")), [""; 0]);
}

#[tokio::test]
async fn a_place_where_nothing_can_be_written_is_a_refusal_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, mend) in [
        (home.path().join("no/such/mail"), "make the directory that it is to be in"),
        (file.clone(), "name a directory, or remove the file"),
        (file.join("mail"), "name a directory, or remove the file"),
    ] {
        let outcome = send(&path).await;
        assert!(matches!(&outcome, Outcome::Refused { why } if why.ends_with(mend)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_directory_that_is_full_takes_no_more() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mail");
    send(&path).await;
    let name = names(&path.join("new")).remove(0);
    (1..10_000).for_each(|n| fs::write(path.join("cur").join(n.to_string()), "").unwrap());
    assert!(matches!(send(&path).await, Outcome::Accepted { .. }), "a retry replaces, and does not add");
    fs::remove_file(path.join("new").join(&name)).unwrap();
    fs::write(path.join("new").join("0"), "").unwrap();
    let outcome = send(&path).await;
    assert!(matches!(&outcome, Outcome::Refused { why } if why.contains("holds 10000 messages")), "{outcome:?}");
}

#[tokio::test]
async fn doctor_says_whether_a_message_could_be_put_there_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mail");
    let look = async |path: &Path| {
        let [finding] = &receiver(path).receiver.examine(NOW).await[..] else { panic!("one line") };
        (finding.health, finding.text.clone())
    };
    let (health, text) = look(&path).await;
    assert!(health == Health::Good && text.ends_with("is made with the first message"), "{text}");
    assert!(!path.exists(), "and not before");
    send(&path).await;
    let (health, text) = look(&path).await;
    assert!(health == Health::Good && text.contains("it holds 1 of 10000 messages"), "{text}");
    assert_eq!((names(&path.join("new")).len(), names(&path.join("tmp")).len(), names(&path).len()), (1, 0, 3));
    let (health, text) = look(&home.path().join("no/mail")).await;
    assert!(health == Health::Bad && text.contains("make the directory that it is to be in"), "{text}");
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let (health, text) = look(&file).await;
    assert!(health == Health::Bad && text.contains("name a directory, or remove the file"), "{text}");
    (0..10_000).for_each(|n| fs::hard_link(&file, path.join("cur").join(n.to_string())).unwrap());
    let (health, text) = look(&path).await;
    assert!(health == Health::Bad && text.contains("remove some of them"), "{text}");
}
