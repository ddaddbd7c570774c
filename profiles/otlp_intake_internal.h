// SPDX-License-Identifier: Apache-2.0
/* What the files of otlp_intake share. Internal to profiles/. */
#ifndef CAIRN_PROFILES_OTLP_INTAKE_INTERNAL_H
#define CAIRN_PROFILES_OTLP_INTAKE_INTERNAL_H

#include "base/hmap.h"
#include "profiles/otlp_intake.h"

/*
 * A fault is an ERR_FORMAT or ERR_INVALID: it rejects the profile at hand. Anything else ends the
 * request.
 */
bool otlp_is_fault(const struct err *e);

struct otlp_digest {
	uint64_t halves[2];
};

/* A function of the dictionary, decoded once: a line without its numbers. */
struct otlp_known_function {
	bool known;
	struct samples_line line;
};

/* What profile.frame.type says. */
enum otlp_frame_type { OTLP_FRAME_UNSAID, OTLP_FRAME_UNKNOWN, OTLP_FRAME_NATIVE, OTLP_FRAME_KERNEL, OTLP_FRAME_INTERPRETED };

/* An attribute of the dictionary, decoded once. */
struct otlp_known_attribute {
	bool known, is_label; /* is_label: it has a key and a value that a label can carry */
	bool is_cpu;          /* cpu.logical_number */
	enum otlp_frame_type frame_type;
	enum otlp_value_kind kind;
	int64_t number; /* of INT */
	struct samples_label label;
	struct otlp_digest digest; /* of the label */
};

/* A set of labels that was asked for: the batch's number, and what it comes to. Found again by its
 * indices. */
struct otlp_label_set {
	uint32_t parent;
	uint32_t first, count; /* in otlp_intake.set_indices */
	uint32_t labels;       /* of the batch */
	int32_t cpu;
	struct otlp_digest digest;
};

/*
 * One request on its way. The caches hold the batch's number plus 1 for each dictionary element in
 * use; they come from calloc, so that pages of elements that nobody uses cost nothing.
 */
struct otlp_intake {
	const struct otlp_request *request;
	struct samples_batch *batch;
	struct arena *arena;
	uint64_t now_unix_nano;
	uint32_t *mappings, *locations, *stacks, *links;
	struct otlp_known_attribute *attributes;
	struct otlp_known_function *functions;

	struct hmap set_index;  /* hash of parent and indices -> number in sets */
	struct buf sets;        /* struct otlp_label_set */
	struct buf set_indices; /* uint32_t */

	/* the resource at hand; resources come in a row */
	struct wire_span resource;
	bool has_resource;
	uint32_t resource_labels;
	struct otlp_digest resource_digest;

	/* the profile at hand */
	uint32_t profile_labels; /* SAMPLES_NONE: the resource's */
	struct buf location_indices; /* uint32_t: 1.7 */
	struct buf staged;           /* of otlp_intake.c */
	struct buf digest;           /* what the key is made of */
	struct buf scratch;          /* of otlp_labels.c */
	struct hmap timeless;        /* half a digest of a profile without any time -> how many there were */

	struct buf modules; /* struct otlp_module */

	/* of otlp_senders.c: the last profile's, and its number in result->senders */
	const uint8_t *sender_resource, *sender_scope;
	uint32_t sender;
	uint32_t stack[PROFILE_MAX_DEPTH];
	struct otlp_intake_result *result;
};

/** A dictionary attribute; ERR_FORMAT: out of range or malformed. */
struct err *otlp_intake_attribute(
	struct otlp_intake *in, uint64_t index, const struct otlp_known_attribute **ret) MUST_USE;
/** An attribute as a label: text as it is, numbers in decimal, bytes in hex; false for what no
 * label carries. ERR_NOMEM. */
struct err *otlp_intake_label(struct otlp_intake *in, const struct otlp_attribute *attribute,
	struct samples_label *ret, bool *is_label_ret) MUST_USE;
/** Labels and digest of a profile's resource. */
struct err *otlp_intake_resource(struct otlp_intake *in, struct wire_span resource) MUST_USE;
/** The set of @p parent and the attributes with these indices. The set is borrowed until the next
 * call. */
struct err *otlp_intake_label_set(struct otlp_intake *in, uint32_t parent,
	struct wire_repeated indices, struct otlp_label_set *ret) MUST_USE;

/** What the value of profile.frame.type means. */
enum otlp_frame_type otlp_intake_frame_type(struct samples_text value);
/** The batch's trace of a sample: by its stack, or in 1.7 by its range of in->location_indices. */
struct err *otlp_intake_trace(struct otlp_intake *in, const struct otlp_sample *sample, uint32_t *ret) MUST_USE;
struct err *otlp_intake_link(struct otlp_intake *in, uint32_t link, uint32_t *ret) MUST_USE;

/** Counts a profile's samples for whoever sent it. */
void otlp_intake_sender(struct otlp_intake *in, const struct otlp_profile *profile, uint64_t samples);

#endif
