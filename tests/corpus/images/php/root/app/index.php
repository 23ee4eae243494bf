<?php
header('Content-Type: text/plain');
parse_str($_SERVER['QUERY_STRING'] ?? '', $query);
switch ($query['do'] ?? '') {
    case '':
        echo 'hello ', get_current_user(), ' ', posix_getpwuid(posix_geteuid())['name'];
        break;
    case 'database':
        $database = new PDO('sqlite::memory:');
        $database->exec('CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (40), (2)');
        echo $database->query('SELECT sum(n) FROM t')->fetchColumn();
        break;
    case 'xml':
        $document = new DOMDocument();
        echo @$document->loadXML(file_get_contents('php://input')) ? $document->documentElement->tagName : 'not XML';
        break;
    case 'digest':
        $name = tempnam(sys_get_temp_dir(), 'body');
        file_put_contents($name, file_get_contents('php://input'));
        echo hash_file('sha256', $name);
        unlink($name);
        break;
    case 'lookup':
        echo gethostbyname($query['name']);
        break;
    case 'tls':
        $context = stream_context_create(['ssl' => ['cafile' => '/etc/tls/tls.pem']]);
        echo @file_get_contents($query['url'], false, $context) ?: 'no answer';
        break;
    case 'text':
        echo mb_strtoupper('straße ä'), ' ', json_encode(['a' => [1, 2]]), ' ', date('Y-m-d', 0), ' ', preg_replace('/\d+/', '#', 'a1b22');
        break;
    case 'password':
        echo password_verify('secret', password_hash('secret', PASSWORD_BCRYPT)) ? 'same' : 'other';
        break;
    case 'opcache':
        echo opcache_get_status(false) ? 'cached' : 'not cached';
        break;
    case 'session':
        session_start();
        $_SESSION['n'] = 1;
        echo session_id() !== '' ? 'started' : 'none';
        break;
    case 'error':
        error_log('an entry as asked');
        throw new RuntimeException('as asked');
    default:
        http_response_code(404);
}
