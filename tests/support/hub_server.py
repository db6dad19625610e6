"""A server that stands for the Hugging Face hub: files, and commits to them."""

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = 'c0' * 20


class Hub:
  """The files of repositories, by OWNER/NAME.

  Attributes:
    files: what there is.
    lying: whether what it sends is not what it says it sends.
    downloads: paths of the files that were sent.
    endpoint: its address.
  """

  def __init__(self):
    self.files: dict[str, dict[str, bytes]] = {}
    self.lying = False
    self.downloads = []
    self.objects = {}
    hub = self

    class Handler(_Handler):
      pass

    Handler.hub = hub
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.endpoint = f'http://127.0.0.1:{self._server.server_port}'
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self):
    self._server.shutdown()
    self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  hub: Hub

  def _answer(self, status, content=b'', **headers):
    if isinstance(content, dict | list):
      content = json.dumps(content).encode()
      headers['Content-Type'] = 'application/json'
    self.send_response(status)
    for name, value in {'Content-Length': len(content), **headers}.items():
      self.send_header(name.replace('_', '-'), str(value))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)

  def _fail(self, status, code):
    self._answer(status, X_Error_Code=code, X_Error_Message=code)

  def do_HEAD(self):  # noqa: N802
    self.do_GET()

  def do_GET(self):  # noqa: N802
    path = self.path.partition('?')[0]
    if path.startswith('/api/models/'):
      repository = '/'.join(path.split('/')[3:5])
      if repository not in self.hub.files:
        return self._fail(404, 'RepoNotFound')
      return self._answer(
        200,
        {
          'id': repository,
          'sha': COMMIT,
          'siblings': [
            {'rfilename': file} for file in self.hub.files[repository]
          ],
        },
      )
    parts = path[1:].split('/', 4)
    if len(parts) < 5:
      return self._fail(404, 'NotFound')
    owner, name, _, revision, file = map(urllib.parse.unquote, parts)
    files = self.hub.files.get(f'{owner}/{name}')
    if files is None:
      return self._fail(404, 'RepoNotFound')
    if revision not in ('main', 'v1', 'refs/pr/1', COMMIT):
      return self._fail(404, 'RevisionNotFound')
    if file not in files:
      return self._fail(404, 'EntryNotFound')
    content = files[file]
    etag = hashlib.sha256(content).hexdigest()
    if self.command == 'GET':
      self.hub.downloads.append(path)
    if self.hub.lying:
      content = content[:-1] + bytes([content[-1] ^ 1])
    return self._answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

  def do_POST(self):  # noqa: N802
    body = self.rfile.read(int(self.headers['Content-Length'] or 0))
    parts = self.path.partition('?')[0].split('/')
    if self.headers['Authorization'] != 'Bearer hf_token':
      return self._fail(401, 'Unauthorized')
    if parts[-1] == 'validate-yaml':
      if b'license: MIT' in body:  # It knows `mit`.
        message = '"license" must be one of [apache-2.0, mit]'
        return self._answer(400, {'errors': [{'message': message}]})
      return self._answer(200, {'warnings': [], 'errors': []})
    if parts[1:] == ['api', 'repos', 'create']:
      wanted = json.loads(body)
      name = f'{wanted.get("organization", "me")}/{wanted["name"]}'
      self.hub.files.setdefault(name, {})
      return self._answer(200, {'url': f'{self.hub.endpoint}/{name}'})
    if parts[-2] == 'preupload':
      files = json.loads(body)['files']
      return self._answer(
        200,
        {
          'files': [
            {
              'path': file['path'],
              'uploadMode': 'lfs'
              if file['path'].endswith('.safetensors')
              else 'regular',
              'shouldIgnore': False,
            }
            for file in files
          ]
        },
      )
    if parts[-2:] == ['objects', 'batch']:
      return self._answer(
        200,
        {
          'transfer': 'basic',
          'objects': [
            {
              **wanted,
              'actions': {
                'upload': {'href': f'{self.hub.endpoint}/store/{wanted["oid"]}'}
              },
            }
            for wanted in json.loads(body)['objects']
          ],
        },
      )
    if parts[-2] == 'commit':
      files = self.hub.files['/'.join(parts[3:5])]
      for line in body.splitlines():
        entry = json.loads(line)
        value = entry['value']
        if entry['key'] == 'lfsFile':
          files[value['path']] = self.hub.objects[value['oid']]
        elif entry['key'] == 'file':
          files[value['path']] = base64.b64decode(value['content'])
      url = f'{self.hub.endpoint}/{"/".join(parts[3:5])}/commit/{COMMIT}'
      return self._answer(200, {'commitUrl': url, 'commitOid': COMMIT})
    return self._fail(404, 'NotFound')

  def do_PUT(self):  # noqa: N802
    body = self.rfile.read(int(self.headers['Content-Length']))
    name = self.path.rpartition('/')[2]
    assert hashlib.sha256(body).hexdigest() == name
    self.hub.objects[name] = body
    self._answer(200)

  def log_message(self, *_):
    pass
