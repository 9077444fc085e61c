//! Access rules. The safe wrapper cannot make them, and Kafka's own tool for it is not among the artefacts that the tests fetch.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::producer::{BaseProducer, Producer as _};

pub(crate) use rdkafka::bindings::rd_kafka_AclOperation_t as Operation;
pub(crate) use rdkafka::bindings::rd_kafka_ResourceType_t as Resource;

/// Allows `user` to do `operation` with everything of this kind whose name begins with `prefix`. `brokers` is an open listener.
pub(crate) fn allow(brokers: &str, user: &str, operation: Operation, kind: Resource, prefix: &str) {
    let client: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("client");
    let raw = client.client().native_ptr();
    let text = |text: &str| CString::new(text).expect("no zero byte");
    let (name, principal, host) = (text(prefix), text(&format!("User:{user}")), text("*"));
    // SAFETY: `raw` lives as long as `client`; the strings outlive the calls, which copy them; each object that librdkafka gives is destroyed
    // once, after its last use, and the queue last of all.
    unsafe {
        let mut binding = sys::rd_kafka_AclBinding_new(
            kind,
            name.as_ptr(),
            sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
            principal.as_ptr(),
            host.as_ptr(),
            operation,
            sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
            std::ptr::null_mut(),
            0,
        );
        assert!(!binding.is_null(), "a rule that librdkafka does not know");
        let queue = sys::rd_kafka_queue_new(raw);
        sys::rd_kafka_CreateAcls(raw, &mut binding, 1, std::ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, 30_000);
        assert!(!event.is_null(), "no answer within 30 s");
        let failed = sys::rd_kafka_event_error(event);
        assert_eq!(failed as i32, 0, "{}", CStr::from_ptr(sys::rd_kafka_err2str(failed)).to_string_lossy());
        let mut count = 0;
        let results = sys::rd_kafka_CreateAcls_result_acls(sys::rd_kafka_event_CreateAcls_result(event), &mut count);
        assert_eq!(count, 1);
        assert!(sys::rd_kafka_acl_result_error(*results).is_null(), "the rule was refused");
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_AclBinding_destroy(binding);
        sys::rd_kafka_queue_destroy(queue);
    }
}
