// SPDX-License-Identifier: Apache-2.0
/*
 * The way of profiles to symbols: the store's answer for a module, its table, demangled names. Internal to api/.
 */
#ifndef CAIRN_API_PROFILES_RESOLVER_H
#define CAIRN_API_PROFILES_RESOLVER_H

#include "profiles/samples.h"
#include "store/store.h"

struct profiles_resolver;

struct sources;

/** @p sources  asked for modules that nobody knows, on @p requester's budget; may be NULL. */
struct err *profiles_resolver_create(struct store *store, struct sources *sources, uint64_t requester,
	struct profiles_resolver **ret) MUST_USE;
/** NULL is fine. */
void profiles_resolver_destroy(struct profiles_resolver *resolver);
void profiles_resolver_destroyp(struct profiles_resolver **resolver);
/** For samples_query; one thread at a time. */
struct samples_resolver profiles_resolver_interface(struct profiles_resolver *resolver);

#endif
