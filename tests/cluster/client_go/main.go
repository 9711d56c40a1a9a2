// Says what client-go makes of kubeconfigs: the request that it would send, or its error.
package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpguts"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

type question struct {
	Name, Kubeconfig, Context string
}

type answer struct {
	Error      string            `json:"error,omitempty"`
	URL        string            `json:"url,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	ServerName string            `json:"serverName,omitempty"`
	Insecure   bool              `json:"insecure,omitempty"`
	OwnRoots   bool              `json:"ownRoots,omitempty"`
	Client     bool              `json:"clientCertificate,omitempty"`
	Proxy      string            `json:"proxy,omitempty"`
}

type recorder struct{ seen *http.Request }

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	// As the transport of net/http does.
	for _, values := range request.Header {
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, errors.New("net/http: invalid header field value")
			}
		}
	}
	r.seen = request
	return nil, errors.New("recorded")
}

func asked(q question) (found answer, err error) {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(q.Kubeconfig)}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: q.Context}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return found, err
	}
	seen := &recorder{}
	config.Wrap(func(http.RoundTripper) http.RoundTripper { return seen })
	transport, err := rest.TransportFor(config)
	if err != nil {
		return found, err
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return found, err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return found, err
	}
	request, err := http.NewRequest("GET", strings.TrimSuffix(base.String(), "/")+"/version", nil)
	if err != nil {
		return found, err
	}
	if _, err = transport.RoundTrip(request); err != nil && seen.seen == nil {
		return found, err
	}
	found.URL = seen.seen.URL.String()
	found.Headers = map[string]string{}
	for name, values := range seen.seen.Header {
		if name == "Authorization" || strings.HasPrefix(name, "Impersonate-") {
			found.Headers[name] = strings.Join(values, ", ")
		}
	}
	found.Insecure = config.Insecure
	found.ServerName = config.ServerName
	if tls != nil {
		found.OwnRoots = tls.RootCAs != nil
		found.Client = config.CertFile != "" || len(config.CertData) > 0
	}
	if config.Proxy != nil {
		if proxy, err := config.Proxy(request); err == nil && proxy != nil {
			found.Proxy = proxy.String()
		}
	}
	return found, nil
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := map[string]answer{}
	for _, one := range questions {
		found, err := asked(one)
		if err != nil {
			found = answer{Error: err.Error()}
		}
		answers[one.Name] = found
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
