//! The audit, for operators.

use axum::Json;
use axum::extract::State;
use spawnpoint_wire::api::AuditReport;
use spawnpoint_wire::problem::Problem;

use super::ops::trusted;
use super::request::Call;
use super::{Ctx, Reply};

/// Whether anything is lost, doubled or left over: everything that runtime, lobby, records and gateways say, against each other.
/// Changes nothing. A clean look takes milliseconds; what is suspected is looked at twice more, which takes 0.8 s.
#[utoipa::path(
    operation_id = "debug_audit",
    get, path = "/debug/audit", tag = "operations",
    responses(
        (status = 200, description = "What is wrong and what could not be seen", body = AuditReport),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn audit(State(ctx): State<Ctx>, call: Call) -> Reply<Json<AuditReport>> {
    trusted(&ctx, &call)?;
    Ok(Json(ctx.app.audit_report().await))
}
