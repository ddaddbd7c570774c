// SPDX-License-Identifier: Apache-2.0
#include "api/api.h"

#include "api/call.h"
#include "api/otlp_export.h"

#include <string.h>
#include <unistd.h>

static const struct net_route routes[] = {
	{NET_POST, "/v1/symbolize", symbolize_on_head, "symbolize"},
	{NET_GET, "/v1/files", files_on_head, "files"},
	{NET_GET, "/v1/files/{id}", file_on_head, "file"},
	{NET_POST, "/v1/uploads", uploads_on_head, "uploads"},
	{NET_GET, "/v1/uploads/{id}", upload_get_on_head, "upload"},
	{NET_PUT, "/v1/uploads/{id}", upload_chunk_on_head, "upload_chunk"},
	{NET_DELETE, "/v1/uploads/{id}", upload_abort_on_head, "upload_abort"},
	{NET_POST, "/v1/uploads/{id}/finish", upload_finish_on_head, "upload_finish"},
	{NET_GET, "/v1/jobs/{id}", job_on_head, "job"},
	{NET_GET, "/v1/agents", agents_on_head, "agents"},
	{NET_POST, "/v1/sync", sync_begin_on_head, "sync_begin"},
	{NET_GET, "/v1/sync", sync_show_on_head, "sync"},
	{NET_POST, "/v1development/profiles", otlp_on_head, "otlp"},
	{NET_GET, "/v1/profiles", profiles_on_head, "profiles"},
	{NET_GET, "/healthz", healthz_on_head, "healthz"},
	{NET_GET, "/readyz", readyz_on_head, "readyz"},
	{NET_GET, "/metrics", metrics_on_head, "metrics"},
};

/* With message_max filled in by api_create. */
static const struct net_grpc_method grpc_methods[] = {
	{.path = "/cairn.v1.Symbolizer/Symbolize", .on_open = symbolize_on_open, CALL_GRPC_UNARY},
	{.path = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
		.unary = true,
		.on_open = otlp_on_open,
		.on_message = call_grpc_on_profiles,
		.on_cancel = call_grpc_on_cancel,
		.on_free = call_grpc_on_free},
};
_Static_assert(ARRAY_SIZE(grpc_methods) < API_GRPC_METHODS_MAX, "struct api has room for them");

/* A gRPC path with another content type: the protocol wants 415, where the router would only know of no such path. */
static bool is_grpc_path(const struct api *api, const struct net_request *request)
{
	for (size_t i = 0; i < api->grpc_method_count; i++) {
		if (strcmp(net_request_path(request), api->grpc_methods[i].path) == 0)
			return true;
	}
	return false;
}

static void on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	if (net_grpc_is(request))
		net_grpc_dispatch(api->grpc_methods, api->grpc_method_count, request, api);
	else if (is_grpc_path(api, request))
		net_request_error(request, 415, "unsupported_media_type", "Content-Type must be application/grpc");
	else
		net_route_dispatch(routes, ARRAY_SIZE(routes), request, user);
}

struct net_handler api_handler(struct api *api)
{
	return (struct net_handler){.on_head = on_head, .user = api};
}

static void fill_defaults(struct api_options *options)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!options->threads)
		options->threads = cpus > 0 ? (uint32_t)cpus : 1;
	if (!options->upload_threads)
		options->upload_threads = 4;
	if (!options->queue)
		options->queue = 1024;
	if (!options->limit_body)
		options->limit_body = 16 << 20;
	if (!options->limit_answer)
		options->limit_answer = 256 << 20;
	if (!options->limit_message)
		options->limit_message = NET_GRPC_MESSAGE_MAX_DEFAULT;
	if (!options->limit_modules)
		options->limit_modules = 10000;
	if (!options->limit_addresses)
		options->limit_addresses = 100000;
	if (!options->profiles_bytes)
		options->profiles_bytes = 512 << 20;
	if (!options->unread_ms)
		options->unread_ms = 30000;
	if (!options->names_bytes)
		options->names_bytes = 64 << 20;
}

struct err *api_create(const struct api_options *options, struct api **ret)
{
	struct api *api = calloc(1, sizeof(*api));
	struct err *e = NULL;

	if (!api)
		return err_nomem();
	api->options = *options;
	fill_defaults(&api->options);
	for (size_t i = 0; i < ARRAY_SIZE(grpc_methods); i++) {
		api->grpc_methods[i] = grpc_methods[i];
		api->grpc_methods[i].message_max = api->options.limit_message;
	}
	api->grpc_method_count = ARRAY_SIZE(grpc_methods);
	api->grpc_methods[api->grpc_method_count++] = api_agent_stream_method; /* with a limit of its own */
	(void)pthread_mutex_init(&api->lock, NULL);
	api->symbolizers = calloc(api->options.threads, sizeof(struct api_symbolizer *));
	api->finished = calloc(API_FINISHED_KEPT, sizeof(*api->finished));
	if (!api->symbolizers || !api->finished)
		e = err_nomem();
	if (!e)
		e = api_agents_create(api->options.samples, &api->agents);
	if (!e)
		e = net_pool_create("question", api->options.threads, api->options.queue, &api->questions);
	if (!e)
		e = net_pool_create("upload", api->options.upload_threads, api->options.queue, &api->uploads);
	if (!e)
		e = net_pool_create("profile", api->options.threads, api->options.queue, &api->profiles);
	if (!e)
		e = api_otlp_create(&api->otlp);
	if (e) {
		api_destroy(api);
		return e;
	}
	*ret = api;
	return NULL;
}

void api_set_server(struct api *api, const struct net_server *server)
{
	api->server = server;
}

void api_drain(struct api *api)
{
	atomic_store_explicit(&api->draining, true, memory_order_relaxed);
}

void api_stop(struct api *api)
{
	api_drain(api);
	net_pool_destroy(TAKE_PTR(api->uploads));
	net_pool_destroy(TAKE_PTR(api->profiles));
	net_pool_destroy(TAKE_PTR(api->questions));
	if (api->agents)
		api_agents_save(api->agents);
}

void api_destroy(struct api *api)
{
	if (!api)
		return;
	api_stop(api);
	for (size_t i = 0; i < api->symbolizer_count; i++)
		api_symbolizer_destroy(api->symbolizers[i]);
	free(api->symbolizers);
	for (size_t i = 0; api->finished && i < API_FINISHED_KEPT; i++)
		free(api->finished[i].upload);
	free(api->finished);
	api_agents_destroy(api->agents);
	api_otlp_destroy(api->otlp);
	(void)pthread_mutex_destroy(&api->lock);
	free(api);
}
