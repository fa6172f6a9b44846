//! How game servers are run.

use axum::Json;
use axum::extract::State;
use spawnpoint_core::Code;
use spawnpoint_wire::api::{FleetList, FleetView};
use spawnpoint_wire::problem::Problem;

use super::request::{Call, Path};
use super::{Ctx, Failure, Reply};

/// All fleets.
#[utoipa::path(
    operation_id = "list_fleets",
    get, path = "/api/fleets", tag = "fleets",
    responses(
        (status = 200, description = "In the order of the configuration", body = FleetList),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(ctx): State<Ctx>, call: Call) -> Reply<Json<FleetList>> {
    call.only(&[])?;
    trusted(&ctx, &call)?;
    let app = &ctx.app;
    let config = app.config.load();
    let mut fleets: Vec<FleetView> = app.with_world(|w| {
        config
            .fleets
            .iter()
            .filter_map(|c| w.fleets.get(&c.name).map(|f| app.fleet_view(&c.name, f)))
            .collect()
    });
    // Fleets that are gone from the configuration and still have games are shown last.
    fleets.extend(app.with_world(|w| {
        w.fleets
            .iter()
            .filter(|(n, f)| config.fleet(n).is_none() && f.sessions > 0)
            .map(|(n, f)| app.fleet_view(n, f))
            .collect::<Vec<_>>()
    }));
    Ok(Json(FleetList { fleets }))
}

/// One fleet: warm, starting, queued, claimed, hit rate, last plan and its reason.
#[utoipa::path(
    operation_id = "get_fleet",
    get, path = "/api/fleets/{name}", tag = "fleets",
    params(("name" = String, Path, description = "The fleet")),
    responses(
        (status = 200, description = "The fleet", body = FleetView),
        (status = "4XX", description = "Not allowed or unknown", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    call: Call,
    Path(name): Path<String>,
) -> Reply<Json<FleetView>> {
    call.only(&[])?;
    trusted(&ctx, &call)?;
    let app = &ctx.app;
    let view = name
        .parse()
        .ok()
        .and_then(|n| app.with_world(|w| w.fleets.get(&n).map(|f| app.fleet_view(&n, f))));
    view.map(Json).ok_or_else(|| {
        let config = app.config.load();
        let names: Vec<_> = config.fleets.iter().map(|f| f.name.as_str()).collect();
        let shown: String = name.chars().take(64).collect();
        Failure(Problem::new(
            Code::FleetNotFound,
            format!(
                "there is no fleet {shown:?}; there are: {}",
                names.join(", ")
            ),
        ))
    })
}

fn trusted(ctx: &Ctx, call: &Call) -> Result<(), Failure> {
    if call.caller(ctx, None)?.is_trusted() {
        return Ok(());
    }
    Err(Failure(Problem::new(
        Code::Forbidden,
        "only a backend key may look at fleets",
    )))
}
