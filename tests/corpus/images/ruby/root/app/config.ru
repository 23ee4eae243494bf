require "digest"
require "erb"
require "json"
require "net/http"
require "nokogiri"
require "openssl"
require "open3"
require "resolv"
require "tempfile"
require "time"
require "yaml"
require "zlib"

app = lambda do |env|
  request = Rack::Request.new(env)
  text =
    case request.path
    when "/" then ERB.new("hello <%= name %>").result_with_hash(name: request.params["name"] || Etc.getlogin || Process.uid)
    when "/xml" then Nokogiri::XML(request.body.read) { |options| options.strict }.root.elements.map(&:name).to_json
    when "/digest"
      Tempfile.create("body") do |file|
        IO.copy_stream(request.body, file)
        file.flush
        Digest::SHA256.file(file.path).hexdigest
      end
    when "/lookup" then Addrinfo.getaddrinfo(request.params["name"], 80, :INET, :STREAM).first.ip_address
    when "/fetch"
      url = URI(request.params["url"])
      Net::HTTP.start(url.host, url.port, use_ssl: true, ca_file: ENV["CA"]) { |http| http.get(url.request_uri).body }
    when "/yaml" then YAML.load("- 1\n- two: 2.5\n").to_json
    when "/zipped" then Zlib::Inflate.inflate(Zlib::Deflate.deflate("x" * 100_000)).size.to_s
    when "/threads" then 8.times.map { |i| Thread.new { sleep 0.01; i } }.sum(&:value).to_s
    when "/key" then OpenSSL::PKey::EC.generate("prime256v1").dsa_sign_asn1("x" * 32).size.positive?.to_s
    when "/date" then Time.at(0).utc.iso8601
    when "/error" then raise "as asked"
    end
  text ? [200, { "content-type" => "text/plain" }, [text]] : [404, {}, ["none"]]
rescue SocketError => e
  [502, {}, [e.message]]
end
run app
