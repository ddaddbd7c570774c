// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"
#include "net/exchange.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *net_status_text(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} words[] = {{200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"}, {206, "Partial Content"},
		{301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
		{307, "Temporary Redirect"}, {308, "Permanent Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"},
		{403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {406, "Not Acceptable"},
		{408, "Request Timeout"}, {409, "Conflict"}, {410, "Gone"}, {411, "Length Required"},
		{412, "Precondition Failed"}, {413, "Content Too Large"}, {415, "Unsupported Media Type"},
		{416, "Range Not Satisfiable"}, {417, "Expectation Failed"}, {422, "Unprocessable Content"},
		{429, "Too Many Requests"}, {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
		{501, "Not Implemented"}, {503, "Service Unavailable"}, {504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"}, {507, "Insufficient Storage"}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].status == status)
			return words[i].text;
	return "Unknown";
}

/* Framing is the transport's: a handler that set it would make two truths. */
static bool name_is_ours(const char *name)
{
	static const char *const ours[] = {"content-length", "transfer-encoding", "connection", "date", "keep-alive", "upgrade"};

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (strcmp(ours[i], name) == 0)
			return true;
	return false;
}

struct err *net_reply_header(struct net_reply *reply, const char *name, const char *value)
{
	char lower[128];
	size_t len = strlen(name);

	if (len == 0 || len >= sizeof(lower))
		return err_new(ERR_INVALID, "header name of %zu bytes", len);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];
		if (!net_is_token_char(c))
			return err_new(ERR_INVALID, "header name '%s' is not a token", name);
		lower[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
	}
	lower[len] = 0;
	if (name_is_ours(lower))
		return err_new(ERR_INVALID, "header '%s' is written by net itself", name);
	if (!net_is_field_value(value, strlen(value)))
		return err_new(ERR_INVALID, "header %s: the value has control characters", name);
	return buf_printf(&reply->headers, "%s: %s\r\n", lower, value);
}

void net_reply_deinit(struct net_reply *reply)
{
	buf_deinit(&reply->headers);
	buf_deinit(&reply->body);
}

static struct err *error_body(struct buf *body, const char *code, const char *message)
{
	struct json json = json_init(body);

	json_object_begin(&json);
	json_key(&json, "error");
	json_object_begin(&json);
	json_key(&json, "code");
	json_text(&json, code);
	json_key(&json, "message");
	json_text(&json, message);
	json_object_end(&json);
	json_object_end(&json);
	return json_finish(&json);
}

__attribute__((format(printf, 4, 0))) static void reply_error_v(struct net_reply *reply, unsigned status, const char *code, const char *format, va_list args)
{
	char message[1024];

	(void)vsnprintf(message, sizeof(message), format, args);
	reply->status = status;
	reply->content_type = "application/json";
	reply->body.len = 0;
	/* Without memory the status alone must do. */
	err_free(error_body(&reply->body, code, message));
}

void net_reply_error(struct net_reply *reply, unsigned status, const char *code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	reply_error_v(reply, status, code, format, args);
	va_end(args);
}

void net_request_error(struct net_request *request, unsigned status, const char *code, const char *format, ...)
{
	struct net_reply reply = {0};
	va_list args;

	va_start(args, format);
	reply_error_v(&reply, status, code, format, args);
	va_end(args);
	if (status == 503)
		err_free(net_reply_header(&reply, "retry-after", "1"));
	net_request_reply(request, &reply);
}
