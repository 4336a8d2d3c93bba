//! `kind = "swr"`: one operation of SWR's API, with the credentials of the source that listed the job.
//!
//! Paths, bodies and the status of success are those of Huawei's API definitions (operations DeleteInstance,
//! DeleteInstanceJob, ShowInstance, CreateInstance); any other status is told as a failure. Which permission each needs is
//! documented nowhere.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Common, Deed, Done, Kind, OUTPUT_MAX};
use crate::cloud::{Call, Project};
use crate::document::schema::{flag, string, table, word};
use crate::document::{Table, suggest};
use crate::http::{Answer, Method, Url};
use crate::model::follow_up::{Ending, FollowUp};
use crate::model::text::{line, lines};

pub(super) const KIND: Kind = Kind {
    name: "swr",
    about: "an operation of SWR's API, in the name of the source that listed the job",
    read,
    schema,
};

const OPERATIONS: &[(&str, Operation)] = &[
    ("delete_instance", Operation::DeleteInstance),
    ("delete_job", Operation::DeleteJob),
    ("show_instance", Operation::ShowInstance),
    ("create_instance", Operation::CreateInstance),
];
/// What CreateInstance cannot do without; `name` may be the job's.
const CREATE_NEEDS: [&str; 6] = ["spec", "vpc_id", "subnet_id", "project_id", "charge_mode", "enterprise_project_id"];
/// Names in a text are cut here.
const NAME_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    DeleteInstance,
    DeleteJob,
    ShowInstance,
    CreateInstance,
}

#[derive(Debug)]
struct Swr {
    operation: Operation,
    delete_obs: bool,
    delete_dns: bool,
    parameters: Map<String, Value>,
    timeout: Duration,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Deed>> {
    let words: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    let word = table.required("operation", &format!("one of {}", words.join(", ")));
    let Some(word) = word else {
        // Without it, nobody knows which keys belong here.
        table.known(&["delete_obs", "delete_dns", "parameters"]);
        return None;
    };
    let Some((_, operation)) = OPERATIONS.iter().find(|(name, _)| *name == word.value) else {
        let message = format!("`operation` cannot be `{}`", word.value);
        table.error("unknown-word", word.span, message, suggest(&word.value, &words));
        table.known(&["delete_obs", "delete_dns", "parameters"]);
        return None;
    };
    let mut swr = Swr {
        operation: *operation,
        delete_obs: false,
        delete_dns: false,
        parameters: Map::new(),
        timeout: common.timeout,
    };
    match operation {
        Operation::DeleteInstance => {
            swr.delete_obs = table.flag("delete_obs").unwrap_or(false);
            swr.delete_dns = table.flag("delete_dns").unwrap_or(false);
        }
        Operation::CreateInstance => {
            let help = "a JSON file with the body of CreateInstance: parameters = \"instance.json\"";
            let name = table.required("parameters", help)?;
            let path = common.base.join(&name.value);
            let text = (common.read)(&path).map_err(|error| error.to_string());
            match text.and_then(|text| parameters_of(&text)) {
                Ok(parameters) => swr.parameters = parameters,
                Err(why) => {
                    let message = format!("`{}` cannot be used: {why}", path.display());
                    table.error("parameters", name.span, message, "a JSON object: the body of CreateInstance");
                    return None;
                }
            }
        }
        Operation::DeleteJob | Operation::ShowInstance => {}
    }
    Some(Arc::new(swr))
}

fn parameters_of(text: &str) -> Result<Map<String, Value>, String> {
    let parameters: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let missing: Vec<&str> = CREATE_NEEDS.into_iter().filter(|key| !parameters.contains_key(*key)).collect();
    match missing.is_empty() {
        true => Ok(parameters),
        false => Err(format!("it lacks {}", missing.join(", "))),
    }
}

fn schema() -> Vec<Value> {
    let operation = |names: &[&'static str]| ("operation", word("What is done.", names.iter().copied()));
    let obs = flag("Whether its bucket goes as well; false if left out.");
    let dns = flag("Whether its DNS records go as well; false if left out.");
    let file = string("A JSON file with the body of CreateInstance; without `name`, the job's resource name is taken.");
    vec![
        table("", &["operation"], [operation(&["delete_instance"]), ("delete_obs", obs), ("delete_dns", dns)]),
        table("", &["operation", "parameters"], [operation(&["create_instance"]), ("parameters", file)]),
        table("", &["operation"], [operation(&["delete_job", "show_instance"])]),
    ]
}

impl Swr {
    /// The operation's name in the cloud's documents, and the status of its success.
    fn facts(&self) -> (&'static str, u16) {
        match self.operation {
            Operation::DeleteInstance => ("DeleteInstance", 202),
            Operation::DeleteJob => ("DeleteInstanceJob", 204),
            Operation::ShowInstance => ("ShowInstance", 200),
            Operation::CreateInstance => ("CreateInstance", 202),
        }
    }

    /// The body of CreateInstance.
    fn creation(&self, follow_up: &FollowUp) -> Result<Value, String> {
        let mut body = self.parameters.clone();
        if !body.contains_key("name") {
            let name = follow_up.topic.transition.job.resource_name.as_deref().filter(|name| !name.is_empty());
            let name = name.ok_or("the job names no resource, and the parameters have no `name`")?;
            body.insert("name".into(), name.into());
        }
        Ok(Value::Object(body))
    }

    fn call(&self, follow_up: &FollowUp, jobs: &Url) -> Result<(Method, Url, Option<String>), String> {
        let instance = || place(jobs, "instances", instance(follow_up)?);
        Ok(match self.operation {
            Operation::DeleteInstance => {
                let body = json!({ "delete_obs": self.delete_obs, "delete_dns": self.delete_dns });
                (Method::DELETE, instance()?, Some(body.to_string()))
            }
            Operation::DeleteJob => {
                let job = follow_up.topic.transition.job.id.as_str();
                (Method::DELETE, place(jobs, "jobs", job)?, None)
            }
            Operation::ShowInstance => (Method::GET, instance()?, None),
            Operation::CreateInstance => {
                let url = jobs.join("instances").map_err(|error| error.to_string())?;
                (Method::POST, url, Some(self.creation(follow_up)?.to_string()))
            }
        })
    }

    async fn ask(&self, follow_up: &FollowUp, project: Project<'_>) -> Done {
        let Project { api, jobs } = project;
        if self.operation == Operation::DeleteInstance
            && let Err(why) = broken(follow_up, project).await
        {
            return Done::not(why);
        }
        let (method, url, body) = match self.call(follow_up, jobs) {
            Ok(call) => call,
            Err(why) => return Done::not(why),
        };
        let (name, success) = self.facts();
        match api.call(&Call { method, url, body: body.as_deref() }).await {
            // The request may have arrived, or not.
            Err(fault) => {
                Done { ending: Ending::Unknown, what: format!("{name}: {fault}"), code: None, output: String::new() }
            }
            Ok(answer) if answer.status == success => Done {
                ending: Ending::Done,
                what: format!("{name} was answered with HTTP {success}"),
                code: Some(i32::from(answer.status)),
                output: said(&answer),
            },
            Ok(answer) => {
                let fault = api.fault(&answer, &format!("for {name}")).await;
                let code = Some(i32::from(answer.status));
                Done { ending: Ending::Failed, what: format!("{name}: {fault}"), code, output: String::new() }
            }
        }
    }
}

/// An instance that runs, whatever its job says, is nothing to delete.
async fn broken(follow_up: &FollowUp, project: Project<'_>) -> Result<(), String> {
    let url = place(project.jobs, "instances", instance(follow_up)?)?;
    let answer = project.api.call(&Call::get(url)).await.map_err(|fault| format!("ShowInstance: {fault}"))?;
    if answer.status != 200 {
        let fault = project.api.fault(&answer, "for ShowInstance").await;
        return Err(format!("the instance cannot be looked at: {fault}"));
    }
    let shown: Value = serde_json::from_slice(&answer.body).map_err(|_| "ShowInstance was answered with no JSON")?;
    match shown.get("status").and_then(Value::as_str) {
        Some(status) if status.eq_ignore_ascii_case("Running") => {
            Err("the instance is Running: it is not broken".into())
        }
        Some(_) => Ok(()),
        None => Err("ShowInstance does not say how the instance is".into()),
    }
}

fn instance(follow_up: &FollowUp) -> Result<&str, String> {
    let id = follow_up.topic.transition.job.instance_id.as_deref().filter(|id| !id.is_empty());
    id.ok_or_else(|| "the job names no instance".into())
}

/// The place of one thing beside the listing of jobs.
fn place(jobs: &Url, what: &str, id: &str) -> Result<Url, String> {
    // Dots would lead somewhere else.
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(format!("`{}` is no id", line(id, NAME_MAX)));
    }
    jobs.join(&format!("{what}/{id}")).map_err(|error| error.to_string())
}

fn said(answer: &Answer) -> String {
    lines(&String::from_utf8_lossy(&answer.body), OUTPUT_MAX)
}

#[async_trait]
impl Deed for Swr {
    fn intent(&self, follow_up: &FollowUp) -> Result<String, String> {
        Ok(match self.operation {
            Operation::DeleteInstance => format!("delete instance {}", line(instance(follow_up)?, NAME_MAX)),
            Operation::DeleteJob => {
                format!("delete job {}", line(follow_up.topic.transition.job.id.as_str(), NAME_MAX))
            }
            Operation::ShowInstance => format!("show instance {}", line(instance(follow_up)?, NAME_MAX)),
            Operation::CreateInstance => {
                let body = self.creation(follow_up)?;
                let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
                format!("create instance {}", line(name, NAME_MAX))
            }
        })
    }

    fn touches_cloud(&self) -> bool {
        true
    }

    async fn perform(&self, follow_up: &FollowUp, project: Option<Project<'_>>) -> Done {
        let Some(project) = project else { return Done::not("its source is no longer in the configuration") };
        let asked = tokio::time::timeout(self.timeout, self.ask(follow_up, project)).await;
        asked.unwrap_or_else(|_| Done {
            ending: Ending::Unknown,
            what: format!("{} was not answered within {:?}", self.facts().0, self.timeout),
            code: None,
            output: String::new(),
        })
    }
}
