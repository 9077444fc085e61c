//! What the safe wrapper does not offer, first of all batch reads of one partition's queue: the one file with `unsafe`.
//!
//! librdkafka keeps fetched messages in a queue per partition. Read through the group's queue, each message costs an event object and a
//! reference count (360–380 ns); `rd_kafka_consume_batch_queue` on the partition's own queue costs 130–230 ns, and lets a slow partition
//! wait without stopping the others: librdkafka stops fetching it when its queue is full. On the *group* queue that function would swallow
//! rebalances, so it is never used there; the group queue is polled beside this one for events.

use std::ffi::{CStr, CString};
use std::os::raw::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as sys;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

/// Most messages taken out in one call.
const BATCH: usize = 256;

/// What was in the queue. Payloads are borrowed from librdkafka for the time of the call.
pub(crate) enum Item<'a> {
    /// A message; a tombstone's payload is empty.
    Message { offset: i64, payload: &'a [u8] },
    /// Everything before this offset has been handed out, and it is the end of the log.
    End { offset: i64 },
    /// The offset that was asked for is not in the log. `reason` is librdkafka's, and names offsets and brokers only. `truncated`: the leader's
    /// epochs tell that the log was cut below it (KIP-320), whatever was written since; `asked` may be no offset then.
    OutOfRange { asked: i64, reason: String, truncated: bool },
    /// Another error of this partition.
    Failed(RDKafkaErrorCode),
}

/// What a drain gave.
pub(crate) struct Drained {
    /// Items handed out.
    pub(crate) count: usize,
    /// Offset and leader epoch of the last message among them.
    pub(crate) last: Option<(i64, i32)>,
}

/// The queue of one partition, taken out of the group's queue.
pub(crate) struct BatchQueue<C: ConsumerContext> {
    raw: NonNull<sys::rd_kafka_queue_t>,
    buffer: Vec<*mut sys::rd_kafka_message_t>,
    /// Holds the queue apart from the group's queue and calls back when something comes. It also holds the consumer, so that the client
    /// outlives `raw`; it is dropped after `raw` was destroyed in `drop`.
    _split: PartitionQueue<C>,
}

// SAFETY: `raw` is a reference-counted handle that librdkafka allows to be used from any thread, one at a time (`&mut self` below);
// `buffer` holds no message between calls. `PartitionQueue` and the consumer behind it are `Send` themselves.
unsafe impl<C: ConsumerContext> Send for BatchQueue<C> where PartitionQueue<C>: Send {}

impl<C: ConsumerContext> BatchQueue<C> {
    /// Takes the queue of a partition out of the group's queue. Do this before the partition is assigned, so that no message goes the
    /// other way. `on_items` is called from librdkafka's threads when the queue stops being empty. `None` if the name cannot be one.
    pub(crate) fn split(
        consumer: &Arc<BaseConsumer<C>>,
        topic: &str,
        partition: i32,
        on_items: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let name = CString::new(topic).ok()?;
        let mut split = consumer.split_partition_queue(topic, partition)?;
        split.set_nonempty_callback(on_items);
        // SAFETY: the client pointer is valid while `consumer` lives, which `split` holds; `name` is a C string that librdkafka copies.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) };
        Some(Self { raw: NonNull::new(raw)?, buffer: Vec::with_capacity(BATCH), _split: split })
    }

    /// Hands out what is in the queue, at most 256 items, without waiting.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(Item<'_>)) -> Drained {
        // SAFETY: `raw` is valid until `drop`; the buffer has room for BATCH pointers, and librdkafka writes at most that many.
        let got = unsafe { sys::rd_kafka_consume_batch_queue(self.raw.as_ptr(), 0 as c_int, self.buffer.as_mut_ptr(), BATCH) };
        let count = usize::try_from(got).unwrap_or(0).min(BATCH);
        // SAFETY: librdkafka has written `count` pointers to messages that now belong to us.
        unsafe { self.buffer.set_len(count) };
        // Once a batch, not for every message: epochs change when leaders do.
        let last = self.buffer.iter().rev().find_map(|message| epoch_of(*message));
        for message in self.buffer.drain(..).map(OwnedMessage) {
            take(message.item());
        }
        Drained { count, last }
    }
}

impl<C: ConsumerContext> Drop for BatchQueue<C> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `rd_kafka_queue_get_partition` and is destroyed once; `_split` keeps the client alive until after this.
        unsafe { sys::rd_kafka_queue_destroy(self.raw.as_ptr()) };
    }
}

/// Offset and leader epoch of a message; `None` for a report or an error.
fn epoch_of(message: *const sys::rd_kafka_message_t) -> Option<(i64, i32)> {
    // SAFETY: called with pointers from librdkafka that are not null and not yet destroyed.
    unsafe {
        let is_message = RDKafkaErrorCode::from((*message).err) == RDKafkaErrorCode::NoError;
        is_message.then(|| ((*message).offset, sys::rd_kafka_message_leader_epoch(message)))
    }
}

/// Seeks an assigned partition to `offset`, which may also be librdkafka's number for the log's beginning. With a leader epoch (-1: none) librdkafka
/// asks the leader first whether the message before `offset` is still there (KIP-320), and reports the log as truncated if it is not.
/// Everything fetched before is dropped. Blocks until the client has taken the order, which does not need a broker.
///
/// # Errors
/// librdkafka's code: "state" while the partition has not begun.
pub(crate) fn seek<C: rdkafka::client::ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &str,
    partition: i32,
    offset: i64,
    epoch: i32,
    timeout: std::time::Duration,
) -> Result<(), RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is alive while it is borrowed. The list copies the name, owns its one element, and is destroyed once, after the last use
    // of the element; the error object, if there is one, is destroyed once.
    unsafe {
        let list = sys::rd_kafka_topic_partition_list_new(1);
        let element = sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition);
        (*element).offset = offset;
        sys::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        let error = sys::rd_kafka_seek_partitions(client.native_ptr(), list, timeout_ms);
        let code = if error.is_null() {
            RDKafkaErrorCode::from((*element).err)
        } else {
            let code = RDKafkaErrorCode::from(sys::rd_kafka_error_code(error));
            sys::rd_kafka_error_destroy(error);
            code
        };
        sys::rd_kafka_topic_partition_list_destroy(list);
        if code == RDKafkaErrorCode::NoError { Ok(()) } else { Err(code) }
    }
}

/// A message that goes back to librdkafka when dropped, also when the one who reads it panics.
struct OwnedMessage(*mut sys::rd_kafka_message_t);

impl OwnedMessage {
    fn item(&self) -> Item<'_> {
        // SAFETY: the pointer came from librdkafka, is not null, and is destroyed only in `drop`.
        let message = unsafe { &*self.0 };
        match RDKafkaErrorCode::from(message.err) {
            RDKafkaErrorCode::NoError if message.payload.is_null() => Item::Message { offset: message.offset, payload: &[] },
            RDKafkaErrorCode::NoError => {
                // SAFETY: librdkafka says that `len` bytes lie at `payload`; they live as long as the message, which `self` holds.
                let payload = unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) };
                Item::Message { offset: message.offset, payload }
            }
            RDKafkaErrorCode::PartitionEOF => Item::End { offset: message.offset },
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                // SAFETY: for a message with an error this is a C string that lives as long as the message; it is copied here.
                let reason = unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(self.0)) }.to_string_lossy().into_owned();
                // Both kinds come as the code "automatic offset reset"; what led to it stands in the text only.
                let truncated = reason.contains(&error_text(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__LOG_TRUNCATION));
                Item::OutOfRange { asked: message.offset, reason, truncated }
            }
            code => Item::Failed(code),
        }
    }
}

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka and is destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) };
    }
}

/// librdkafka's text of an error code.
fn error_text(code: sys::rd_kafka_resp_err_t) -> String {
    // SAFETY: returns a static C string for every code.
    unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) }.to_string_lossy().into_owned()
}

/// Asks a broker for a topic's id (KIP-516), as `kafka-topics --describe` prints it. Blocks, a second longer than `timeout` at the most.
/// `Ok(None)`: the broker is older than 2.8 and gives topics no ids.
///
/// Unless told which broker, librdkafka would ask the controller and wait for that one to be there; every broker knows.
///
/// # Errors
/// librdkafka's code: [`RDKafkaErrorCode::UnknownTopicOrPartition`] when there is no such topic.
pub(crate) fn topic_id<C: rdkafka::client::ClientContext>(
    client: &rdkafka::client::Client<C>,
    broker: i32,
    topic: &str,
    timeout: std::time::Duration,
) -> Result<Option<String>, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let mut names = [name.as_ptr()];
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` is alive while `client` is borrowed. The collection copies the name. Options, queue and event are destroyed below, each
    // once, on every way out; the result, its descriptions and the id borrow from the event and are copied before it is destroyed.
    unsafe {
        let queue = sys::rd_kafka_queue_new(rk);
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, std::ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_broker(options, broker, std::ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(rk, topics, options, queue);
        // The request has its own timeout, so an event comes; the wait is longer so as not to give up before it.
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1000));
        let answer = described_id(event);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// The id out of the answer to a question about one topic.
///
/// # Safety
/// `event` is null or an event of librdkafka that lives until this returns.
unsafe fn described_id(event: *mut sys::rd_kafka_event_t) -> Result<Option<String>, RDKafkaErrorCode> {
    if event.is_null() {
        return Err(RDKafkaErrorCode::RequestTimedOut);
    }
    // SAFETY: `event` is alive by the contract, and so is all that is borrowed from it; every pointer is checked before it is read.
    unsafe {
        match RDKafkaErrorCode::from(sys::rd_kafka_event_error(event)) {
            RDKafkaErrorCode::NoError => {}
            code => return Err(code),
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if descriptions.is_null() || count != 1 {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            match RDKafkaErrorCode::from(sys::rd_kafka_error_code(error)) {
                RDKafkaErrorCode::NoError => {}
                code => return Err(code),
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0 && sys::rd_kafka_Uuid_least_significant_bits(id) == 0)
        {
            return Ok(None);
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        // Kafka's own tools print the URL-safe alphabet.
        Ok(Some(CStr::from_ptr(text).to_string_lossy().replace('+', "-").replace('/', "_")))
    }
}

/// The version of librdkafka, for reports.
pub(crate) fn librdkafka_version() -> String {
    // SAFETY: returns a static C string.
    unsafe { CStr::from_ptr(sys::rd_kafka_version_str()) }.to_string_lossy().into_owned()
}

/// Lets the groups of a mock cluster form at once, instead of waiting three seconds for further members. `host` is the client that runs
/// the cluster; without one nothing happens.
pub(crate) fn join_at_once<C: rdkafka::client::ClientContext>(host: &rdkafka::client::Client<C>) {
    // SAFETY: the client is alive; the cluster belongs to it and lives as long. The function takes the cluster's own lock.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(host.native_ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
    }
}
