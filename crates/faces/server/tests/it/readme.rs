//! The README's first screen, typed as it stands.

use std::process::Command;

use serde_json::Value;

use super::house::House;

const README: &str = include_str!("../../../../../README.md");

/// The commands of the second terminal.
fn commands() -> &'static str {
    let (_, screen) = README.split_once("## Two minutes").unwrap();
    screen.split("```sh").nth(2).unwrap().split("```").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_first_screen_does_what_it_says() {
    let house = House::start::<&str>(&[]).await;
    let address = house.url("");
    let port = address.rsplit(':').next().unwrap();
    let typed = commands().replace("rt_…", house.key()).replace(":3000", &format!(":{port}"));
    let done = Command::new("sh").args(["-eu", "-c", &typed]).output().unwrap();
    let (said, erred) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(done.status.success(), "{said}\n{erred}");

    for part in [r#""status":"healthy""#, "# TYPE http_server_", r#""openapi":"3.1"#] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let id = said.split(r#""id":""#).nth(1).unwrap().split('"').next().unwrap();
    let job: Value = house.finished(id).await;
    assert_eq!((&job["state"], &job["result"]["status"]), (&"completed".into(), &200.into()), "{job:#}");
}
