//! The built-in browser game and the browser client, embedded.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::RustEmbed;

use super::request::Path;
use super::{Ctx, not_found};

#[derive(RustEmbed)]
#[folder = "../../web/play"]
#[exclude = "*.test.js"]
struct Page;

#[derive(RustEmbed)]
#[folder = "../../web/client"]
#[include = "spawnpoint.js"]
struct Client;

pub(super) fn router() -> Router<Ctx> {
    Router::new()
        .route("/play", get(|| file::<Page>("index.html")))
        .route("/play/", get(|| async { Redirect::permanent("/play") }))
        .route(
            "/play/{*file}",
            get(|Path(name): Path<String>| async move { file::<Page>(&name).await }),
        )
        .route(
            "/client/{*file}",
            get(|Path(name): Path<String>| async move { file::<Client>(&name).await }),
        )
}

async fn file<T: RustEmbed>(name: &str) -> Response {
    let Some(file) = T::get(name) else {
        let uri = format!("/{name}").parse().unwrap_or_default();
        return not_found(uri).await.into_response();
    };
    let kind = file.metadata.mimetype().to_owned();
    // Revalidated each time: a new release must not meet an old script.
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    (StatusCode::OK, headers, file.data.into_owned()).into_response()
}
