//! The judge is judged: where a case states by hand what passes, the reference agrees. No packets; every case is played on
//! an API server alone, with invented addresses.

use lab::api_server::{ApiServer, Config};
use lab::control_plane;
use lab::policy::Truth;

use crate::case::Case;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn reference_agrees_with_what_is_stated_by_hand() {
    let config = Config { control_plane: Some(control_plane::Config::default()), ..Config::default() };
    let server = ApiServer::start(config).await.unwrap();
    let stage = Stage::new(server.handle(), None).await;
    let mut wrong = Vec::new();
    let mut stated = 0;
    for case in Case::read("") {
        let ports = case.ports();
        for (number, step) in (1..).zip(&case.steps) {
            stage.take(step).await;
            let members = stage.members();
            let reference = Truth::expected(&members, &ports, &stage.objects());
            let Some(by_hand) = step.stated(&members, &ports) else { continue };
            stated += 1;
            if let Some(picture) = reference.difference(&by_hand) {
                wrong.push(format!("{}, step {number}: {picture}", case.name));
            }
        }
        stage.reset().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(stated > 55, "only {stated} steps state what passes");
}

/// Every one of upstream's cases is here once, and says by hand what passes.
#[test]
fn all_of_upstreams_cases_are_here() {
    let cases = Case::read("e2e-");
    let mut numbers: Vec<u32> = cases.iter().map(|case| case.name[..2].parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=48).collect::<Vec<_>>());
    for case in &cases {
        assert!(case.steps.iter().all(|step| step.is_stated()), "{}", case.name);
    }
}
