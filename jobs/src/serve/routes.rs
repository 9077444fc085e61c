//! The one list of what there is: method, path, who may use it, and what answers. A route that is not here is not there, and none is without its `Needs`.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use starling_query::Room;

use super::told::Refused;
use super::way_in::{Needs, guard};
use super::{Door, alerts, audit, budget, catalogue, console, health, login, openapi, promises, sql};

/// A route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    handler: MethodRouter<Door>,
}

fn route<H: Handler<T, Door>, T: 'static>(method: Method, path: &'static str, needs: Needs, handler: H) -> Route {
    // All methods of the list below are ones that axum knows; one that it does not would be asked with none.
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
    Route { method, path, needs, handler: on(filter, handler) }
}

/// All routes.
pub(super) fn all() -> Vec<Route> {
    use Needs::{Nothing, Room as In, Somebody};
    vec![
        route(Method::GET, "/livez", Nothing, health::live),
        route(Method::GET, "/readyz", Nothing, health::ready),
        route(Method::GET, "/", Nothing, console::start),
        route(Method::GET, "/console/{*path}", Nothing, console::file),
        route(Method::GET, "/v1/openapi.json", Nothing, openapi::document),
        route(Method::POST, "/v1/login", Nothing, login::log_in),
        route(Method::POST, "/v1/logout", Somebody, login::log_out),
        route(Method::GET, "/v1/me", Somebody, login::me),
        // The gate says of what.
        route(Method::POST, "/v1/sql", Somebody, sql::ask),
        route(Method::GET, "/v1/metrics", In(Room::Metrics), catalogue::metrics),
        route(Method::GET, "/v1/budget", In(Room::Budget), budget::show),
        route(Method::GET, "/v1/audit", In(Room::Audit), audit::page),
        route(Method::GET, "/v1/health", In(Room::Health), health::show),
        route(Method::GET, "/v1/promises", In(Room::Promises), promises::show),
        route(Method::GET, "/v1/alerts", In(Room::Alerts), alerts::list),
        route(Method::GET, "/v1/alerts/stream", In(Room::Alerts), alerts::stream_alerts),
        route(Method::GET, "/v1/alerts/rules", In(Room::Alerts), alerts::rules),
        route(Method::POST, "/v1/alerts/rules/{rule}/restore", In(Room::Alerts), alerts::restore),
        route(Method::GET, "/v1/alerts/silences", In(Room::Alerts), alerts::silences),
        route(Method::GET, "/v1/alerts/{alert}", In(Room::Alerts), alerts::show),
        route(Method::POST, "/v1/alerts/{alert}/steps", In(Room::Alerts), alerts::step),
        route(Method::POST, "/v1/alerts/{alert}/silence", In(Room::Alerts), alerts::silence),
        route(Method::DELETE, "/v1/alerts/{alert}/silence", In(Room::Alerts), alerts::end_silence),
    ]
}

/// The routes behind their guard, with what every answer says to browsers.
pub(super) fn app(door: Door) -> Router {
    let mut app = Router::new();
    for Route { method, path, needs, handler } in all() {
        tracing::debug!(%method, path, ?needs, "a route");
        app = app.route(path, handler.layer(from_fn_with_state((door.clone(), needs), guard)));
    }
    app.fallback(nothing_here).method_not_allowed_fallback(other_method).with_state(door).layer(map_response(headed))
}

async fn nothing_here() -> Refused {
    Refused::new("02000", "there is no such address", "GET /v1/openapi.json tells what there is")
}

async fn other_method(request: Request) -> Refused {
    drop(request);
    let hint = "GET /v1/openapi.json tells what there is";
    Refused::new("0A000", "this address is asked in another way", hint).with(StatusCode::METHOD_NOT_ALLOWED)
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

async fn headed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(header::CONTENT_SECURITY_POLICY, POLICY);
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::REFERRER_POLICY, "no-referrer");
    // No page of another host takes it in as an image, a script or whatever else is fetched without asking.
    put(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
