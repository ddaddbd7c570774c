// SPDX-License-Identifier: Apache-2.0
/*
 * Reading OTLP profiles (opentelemetry.proto.collector.profiles.v1development) in place, of every
 * layout from proto 1.7 to 1.11, which share one service name and carry no version: the layout is
 * told from the message itself (otlp_layout.c).
 *
 * Nothing is copied: a request is opened by noting where the elements of each dictionary table lie
 * (8 bytes an element), profiles and samples are then walked with cursors, and dictionary elements
 * are decoded when they are asked for. So memory is at most four times the message, whatever it
 * claims. All indices are checked; a fault belongs to the profile that has it, not to the request.
 *
 * Lifetimes: everything points into the message and the arena that otlp_open was given. One thread
 * at a time.
 */
#ifndef CAIRN_PROFILES_OTLP_H
#define CAIRN_PROFILES_OTLP_H

#include "base/arena.h"
#include "proto/wire_read.h"

/* The three ways in which a Sample and what it points to are laid out. */
enum otlp_layout {
	OTLP_1_7,  /* location ranges in the profile, KeyValue attributes, attribute units apart */
	OTLP_1_8,  /* stacks; sample {stack, values, attributes, link, timestamps}; profile with
		      comment */
	OTLP_1_9,  /* as 1.8, profile without comment */
	OTLP_1_10, /* sample {stack, attributes, link, values, timestamps}; 1.11 is the same */
	OTLP_LAYOUTS,
};

enum otlp_table_name {
	OTLP_MAPPINGS,
	OTLP_LOCATIONS,
	OTLP_FUNCTIONS,
	OTLP_LINKS,
	OTLP_STRINGS,
	OTLP_ATTRIBUTES,
	OTLP_STACKS,          /* from 1.8 on */
	OTLP_ATTRIBUTE_UNITS, /* 1.7 only */
	OTLP_TABLES,
};

enum {
	OTLP_ELEMENTS_MAX = 4 << 20, /* of one dictionary table */
	OTLP_NONE = UINT32_MAX,      /* a reference that is not set */
};

struct otlp_element {
	uint32_t off, len; /* in the message */
};

struct otlp_request {
	struct wire_span message;
	enum otlp_layout layout;
	struct otlp_table {
		const struct otlp_element *items;
		uint32_t count;
	} tables[OTLP_TABLES];
};

struct otlp_text {
	const char *bytes; /* not NUL-terminated */
	size_t len;
};

enum otlp_value_kind {
	OTLP_VALUE_NONE,
	OTLP_VALUE_TEXT,
	OTLP_VALUE_BOOL,
	OTLP_VALUE_INT,
	OTLP_VALUE_DOUBLE,
	OTLP_VALUE_BYTES,
	OTLP_VALUE_OTHER, /* arrays and maps: carried by no label */
};

struct otlp_attribute {
	struct otlp_text key;
	enum otlp_value_kind kind;
	struct otlp_text text; /* of TEXT and BYTES */
	int64_t number;        /* of INT and BOOL */
	double real;           /* of DOUBLE */
};

struct otlp_mapping {
	uint64_t memory_start, memory_limit, file_offset;
	uint32_t filename;               /* string index */
	struct wire_repeated attributes; /* indices into OTLP_ATTRIBUTES */
};

struct otlp_location {
	uint32_t mapping; /* OTLP_NONE: none. From 1.8 on index 0 means none; in 1.7 it is a mapping
			     like others */
	uint64_t address;
	struct wire_span lines; /* walked with otlp_next_line; empty: none */
	struct wire_repeated attributes;
};

struct otlp_line {
	uint32_t function;
	int64_t line, column;
};

struct otlp_function {
	uint32_t name, system_name, filename; /* string indices */
	int64_t start_line;
};

struct otlp_value_type {
	uint32_t type, unit; /* string indices */
};

struct otlp_profile {
	struct wire_span body;
	struct wire_span
		resource; /* the Resource message; attributes by otlp_next_resource_attribute */
	struct wire_span scope;
	struct otlp_value_type sample_type; /* 1.7: of value 0 */
	uint32_t sample_types; /* 1.7 may have several (otlp_next_sample_type); else 1 */
	struct otlp_value_type period_type;
	int64_t period;
	uint64_t time_unix_nano, duration_nano;
	struct wire_span profile_id; /* 16 bytes or empty */
	struct wire_repeated attributes;
	struct wire_repeated location_indices; /* 1.7 */
};

struct otlp_sample {
	uint32_t stack;                      /* index into OTLP_STACKS; unused in 1.7 */
	uint32_t locations_first, locations; /* 1.7: a range of the profile's location_indices */
	uint32_t link;                       /* OTLP_NONE: none, as otlp_location.mapping */
	struct wire_repeated attributes, values, timestamps;
};

/**
 * Opens an ExportProfilesServiceRequest or ProfilesData: finds the dictionary and its elements,
 * decides the layout.
 * @param arena  takes the element arrays
 * @return NULL; ERR_FORMAT: not protobuf, at which offset; ERR_UNSUPPORTED: no dictionary although
 * there are profiles (1.6 and older); ERR_LIMIT: OTLP_ELEMENTS_MAX; ERR_NOMEM. Cost: one pass over
 * the dictionary, a sample of the profiles.
 */
struct err *otlp_open(
	struct wire_span message, struct arena *arena, struct otlp_request *ret) MUST_USE;

/* Walks all profiles of a request, in message order. Zero-initialise, then set `request`. */
struct otlp_cursor {
	const struct otlp_request *request;
	struct reader message, resource_profiles, scope_profiles;
	struct wire_span resource, scope;
	unsigned depth;
	bool malformed; /* a resource_profiles or scope_profiles was cut short: the profiles behind
			   the fault are lost */
};
/**
 * The next profile. A profile that is not protobuf gives *fault_ret (borrowed text) and is
 * otherwise empty.
 * @return false after the last one.
 */
bool otlp_next_profile(
	struct otlp_cursor *cursor, struct otlp_profile *ret, const char **fault_ret);

/** The sample types of a 1.7 profile, one for each of a sample's values: *types starts as
 * wire_reader(profile.body, ..). */
bool otlp_next_sample_type(struct reader *types, struct otlp_value_type *ret);

/**
 * The next sample of a profile: *samples starts as wire_reader(profile.body, ..).
 * @return false after the last one, and when the body is malformed (samples->failed)
 */
bool otlp_next_sample(
	const struct otlp_request *request, struct reader *samples, struct otlp_sample *ret);

/** The next attribute of a resource: *attributes starts as wire_reader(profile.resource, ..). */
bool otlp_next_resource_attribute(
	const struct otlp_request *request, struct reader *attributes, struct otlp_attribute *ret);

/* Dictionary elements by index; false when the index is out of range or the element malformed. */
bool otlp_string(const struct otlp_request *request, uint64_t index, struct otlp_text *ret);
bool otlp_attribute(const struct otlp_request *request, uint64_t index, struct otlp_attribute *ret);
bool otlp_mapping(const struct otlp_request *request, uint64_t index, struct otlp_mapping *ret);
bool otlp_location(const struct otlp_request *request, uint64_t index, struct otlp_location *ret);
bool otlp_function(const struct otlp_request *request, uint64_t index, struct otlp_function *ret);
/** Trace ID (16 bytes) and span ID (8 bytes) of a link; other lengths are a fault. */
bool otlp_link(const struct otlp_request *request, uint64_t index, struct wire_span *trace_id_ret,
	struct wire_span *span_id_ret);
/** The location indices of a stack, leaf first. */
bool otlp_stack(const struct otlp_request *request, uint64_t index, struct wire_repeated *ret);
/** Lines of a location, innermost first: *lines starts as wire_reader(location.lines, ..). */
bool otlp_next_line(struct reader *lines, struct otlp_line *ret);

/** What the message's own wire types say of its layout; see otlp_layout.c. Needs tables to be
 * filled. */
enum otlp_layout otlp_detect_layout(const struct otlp_request *request);

#endif
