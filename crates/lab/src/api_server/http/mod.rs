//! HTTP: one entry for every path, faults first, then the verb; every refusal becomes a `Status` object.

mod columns;
mod discovery;
mod openapi;
mod read;
mod request;
mod scale;
mod table;
mod view;
mod watch;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

use super::shared::Shared;
use super::{ApiError, Availability, tls};
use request::{Parameters, Target, Verb};

/// Largest request body: etcd's own limit is 1.5 MiB; a bulk load may be generous.
const BODY_LIMIT: usize = 16 << 20;

/// The service of all paths.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(entry).with_state(shared)
}

/// A request taken apart.
struct Call {
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON, whatever JSON-like content type was named.
    fn json(&self) -> Result<Value, ApiError> {
        let content_type = self.header(header::CONTENT_TYPE);
        if content_type.contains("protobuf") || content_type.contains("yaml") || content_type.contains("cbor")
        {
            return Err(ApiError::UnsupportedMediaType(content_type.to_owned()));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| ApiError::BadRequest(format!("request body is not JSON: {error}")))
    }
}

async fn entry(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let answered = match tls::admit(&shared, &request) {
        Ok(()) => answer(&shared, request).await,
        Err(stranger) => Err(stranger),
    };
    match answered {
        Ok(response) => response,
        Err(error) => {
            let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            json_response(code, error.status().to_string())
        }
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Body>) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|error| ApiError::BadRequest(format!("request body: {error}")))?;
    let parameters = Parameters::parse(parts.uri.query().unwrap_or_default())?;
    let target = Target::parse(parts.uri.path())?;
    let call = Call { parameters, headers: parts.headers, body };
    faults(shared, &target, &parts.method, &call).await?;
    match &target {
        Target::Document(path) => {
            let (content_type, body) = discovery::document(path, call.header(header::ACCEPT))?;
            Ok(response(StatusCode::OK, &content_type, body))
        }
        Target::Objects(objects) => match Verb::of(&parts.method, objects, &call.parameters)? {
            Verb::Get => read::get(shared, objects, &call),
            Verb::List => read::list(shared, objects, &call),
            Verb::Watch => watch::watch(shared, objects, &call),
            Verb::Create => write::create(shared, objects, &call),
            Verb::Update => write::update(shared, objects, &call),
            Verb::Patch => write::patch(shared, objects, &call),
            Verb::Delete => write::delete(shared, objects, &call),
            Verb::DeleteCollection => write::delete_collection(shared, objects, &call),
        },
    }
}

/// Counts the request, then does to it what the test ordered.
async fn faults(shared: &Shared, target: &Target, method: &Method, call: &Call) -> Result<(), ApiError> {
    if let Target::Objects(objects) = target
        && let Ok(verb) = Verb::of(method, objects, &call.parameters)
    {
        shared.switches.count(verb.name(), objects.resource);
    }
    let latency = shared.switches.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    // An error means the server is being dropped; the connection is cut anyway.
    let _ = shared.switches.availability().wait_for(|now| *now == Availability::Serving).await;
    shared.switches.failure().map_or(Ok(()), |code| Err(ApiError::Ordered(code)))
}

fn response(code: StatusCode, content_type: &str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn json_response(code: StatusCode, body: impl Into<Body>) -> Response {
    response(code, "application/json", body)
}
