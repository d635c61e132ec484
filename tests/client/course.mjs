// What a program does with a client that is generated from the API's description: the types of `api.d.ts` are those that
// openapi-typescript makes of /openapi.json, and tsc holds this file to them before it runs.

import createClient from 'openapi-fetch';

/**
 * Makes a course with a lesson, uploads a recording by tus, and meets a refusal.
 * @param {string} origin
 * @param {string} key
 */
export async function run(origin, key) {
  /** @type {import('openapi-fetch').Client<import('./api.js').paths>} */
  const api = createClient({ baseUrl: origin, headers: { authorization: `Bearer ${key}` } });
  const course = await api.POST('/v1/courses', {
    params: { header: { 'Idempotency-Key': 'one course' } },
    body: { title: 'By a generated client' },
  });
  if (!course.data) throw new Error(`no course: ${course.error.code}`);
  const made = await api.POST('/v1/courses/{id}/lessons', {
    params: { path: { id: course.data.id } },
    body: { title: 'A lesson', encrypt: false },
  });
  if (!made.data) throw new Error(`no lesson: ${made.error.code}`);
  const path = { id: made.data.id };

  const shown = await api.GET('/v1/lessons/{id}', { params: { path } });
  const tag = shown.response.headers.get('etag') ?? '';
  const unchanged = await api.GET('/v1/lessons/{id}', { params: { path, header: { 'If-None-Match': tag } } });
  const lost = await api.PATCH('/v1/lessons/{id}', {
    params: { path, header: { 'If-Match': '"another"' } },
    body: { title: 'Renamed' },
  });

  const tus = { 'Tus-Resumable': '1.0.0' };
  const begun = await api.POST('/v1/uploads', {
    params: { header: { ...tus, 'Upload-Length': 5, 'Upload-Metadata': `lesson ${btoa(path.id)}` } },
  });
  const upload = { id: begun.response.headers.get('location')?.split('/').pop() ?? '' };
  const appended = await api.PATCH('/v1/uploads/{id}', {
    params: { path: upload, header: { ...tus, 'Upload-Offset': 0 } },
    headers: { 'content-type': 'application/offset+octet-stream' },
    body: 'hello',
    bodySerializer: (bytes) => bytes,
  });
  const lessons = await api.GET('/v1/courses/{id}/lessons', {
    params: { path: { id: course.data.id }, query: { limit: 1 } },
  });
  const refused = await api.GET('/v1/lessons/{id}', { params: { path: { id: 'none' } } });
  const removed = await api.DELETE('/v1/courses/{id}', { params: { path: { id: course.data.id } } });

  return {
    state: made.data.state,
    unchanged: unchanged.response.status,
    lost: lost.error?.code,
    begun: begun.response.status,
    appended: appended.response.status,
    lessons: lessons.data?.items.map((lesson) => lesson.state),
    refused: refused.error?.code,
    removed: removed.response.status,
  };
}
