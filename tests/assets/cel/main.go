// Judge AdmissionReviews by ValidatingAdmissionPolicies as an API server does, and print what each
// expression costs it.
//
// Standard input: JSON objects with the policies, {"policies": [...]}, then reviews. Standard
// output: one JSON object for each review, with the policies that match it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	v1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
)

type input struct {
	Policies []*v1.ValidatingAdmissionPolicy `json:"policies"`
	Request  *admissionv1.AdmissionRequest   `json:"request"`
}

// What one expression says, with the variables that it reads.
type evaluated struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Cost   int64  `json:"cost"`
	Micros int64  `json:"micros"`
	Error  string `json:"error,omitempty"`
}

type judged struct {
	Policy      string      `json:"policy"`
	Conditions  []evaluated `json:"conditions"`
	Validations []evaluated `json:"validations"`
	Messages    []evaluated `json:"messages"`
	Annotations []evaluated `json:"annotations"`
	// All validations in their order, each variable once; -1 if that is over the budget.
	Total int64 `json:"total"`
}

type expressions struct {
	names      []string
	evaluators []plugincel.ConditionEvaluator
	all        plugincel.ConditionEvaluator
}

type compiled struct {
	policy                                         *v1.ValidatingAdmissionPolicy
	conditions, validations, messages, annotations expressions
}

var declared = plugincel.OptionalVariableDeclarations{HasAuthorizer: true}

func compile(policy *v1.ValidatingAdmissionPolicy) compiled {
	compiler, err := plugincel.NewCompositedCompiler(
		environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	check(err)
	for _, variable := range policy.Spec.Variables {
		result := compiler.CompileAndStoreVariable(
			&validating.Variable{Name: variable.Name, Expression: variable.Expression},
			declared, environment.StoredExpressions)
		if result.Error != nil {
			fail("%s: variable %s: %v", policy.Name, variable.Name, result.Error)
		}
	}
	add := func(into *expressions, name string, one plugincel.ExpressionAccessor) {
		if one.GetExpression() == "" {
			return
		}
		evaluator := compiler.CompileCondition([]plugincel.ExpressionAccessor{one}, declared, environment.NewExpressions)
		for _, err := range evaluator.CompilationErrors() {
			fail("%s: %s: %v", policy.Name, name, err)
		}
		into.names = append(into.names, name)
		into.evaluators = append(into.evaluators, evaluator)
	}
	found := compiled{policy: policy}
	for i := range policy.Spec.MatchConditions {
		condition := (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i])
		add(&found.conditions, condition.Name, condition)
	}
	var all []plugincel.ExpressionAccessor
	for i, one := range policy.Spec.Validations {
		name := fmt.Sprint(i)
		condition := &validating.ValidationCondition{Expression: one.Expression, Message: one.Message, Reason: one.Reason}
		add(&found.validations, name, condition)
		add(&found.messages, name, &validating.MessageExpressionCondition{MessageExpression: one.MessageExpression})
		all = append(all, condition)
	}
	found.validations.all = compiler.CompileCondition(all, declared, environment.NewExpressions)
	for _, one := range policy.Spec.AuditAnnotations {
		add(&found.annotations, one.Key, &validating.AuditAnnotationCondition{Key: one.Key, ValueExpression: one.ValueExpression})
	}
	return found
}

func object(raw runtime.RawExtension) runtime.Object {
	if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
		return nil
	}
	found := &unstructured.Unstructured{}
	check(found.UnmarshalJSON(raw.Raw))
	return found
}

func attributes(request *admissionv1.AdmissionRequest) *admission.VersionedAttributes {
	kind := schema.GroupVersionKind{Group: request.Kind.Group, Version: request.Kind.Version, Kind: request.Kind.Kind}
	resource := schema.GroupVersionResource{Group: request.Resource.Group, Version: request.Resource.Version, Resource: request.Resource.Resource}
	extra := map[string][]string{}
	for key, values := range request.UserInfo.Extra {
		extra[key] = values
	}
	who := &user.DefaultInfo{Name: request.UserInfo.Username, UID: request.UserInfo.UID, Groups: request.UserInfo.Groups, Extra: extra}
	var options runtime.Object
	switch request.Operation {
	case admissionv1.Create:
		options = &metav1.CreateOptions{}
	case admissionv1.Update:
		options = &metav1.UpdateOptions{}
	case admissionv1.Delete:
		options = &metav1.DeleteOptions{}
	}
	old, new := object(request.OldObject), object(request.Object)
	dry := request.DryRun != nil && *request.DryRun
	attributes := admission.NewAttributesRecord(new, old, kind, request.Namespace, request.Name, resource,
		request.SubResource, admission.Operation(request.Operation), options, dry, who)
	return &admission.VersionedAttributes{Attributes: attributes, VersionedObject: new, VersionedOldObject: old, VersionedKind: kind}
}

func matches(policy *v1.ValidatingAdmissionPolicy, attributes admission.Attributes) bool {
	for _, one := range policy.Spec.MatchConstraints.ResourceRules {
		matcher := rules.Matcher{Rule: one.RuleWithOperations, Attr: attributes}
		if matcher.Matches() {
			return true
		}
	}
	return false
}

func (e *expressions) evaluate(given *admission.VersionedAttributes, request *admissionv1.AdmissionRequest) []evaluated {
	found := []evaluated{}
	for i, evaluator := range e.evaluators {
		started := time.Now()
		results, left, err := evaluator.ForInput(context.Background(), given, request, plugincel.OptionalVariableBindings{}, nil, celconfig.RuntimeCELCostBudget)
		one := evaluated{Name: e.names[i], Cost: celconfig.RuntimeCELCostBudget - left, Micros: time.Since(started).Microseconds()}
		switch {
		case err != nil:
			one.Error, one.Cost = err.Error(), celconfig.RuntimeCELCostBudget
		case results[0].Error != nil:
			one.Error = results[0].Error.Error()
		default:
			one.Result = fmt.Sprint(results[0].EvalResult.Value())
		}
		found = append(found, one)
	}
	return found
}

func (c *compiled) judge(given *admission.VersionedAttributes) judged {
	request := plugincel.CreateAdmissionRequest(given.Attributes,
		metav1.GroupVersionResource(given.Attributes.GetResource()), metav1.GroupVersionKind(given.VersionedKind))
	_, left, err := c.validations.all.ForInput(context.Background(), given, request, plugincel.OptionalVariableBindings{}, nil, celconfig.RuntimeCELCostBudget)
	total := celconfig.RuntimeCELCostBudget - left
	if err != nil {
		total = -1
	}
	return judged{
		Policy:      c.policy.Name,
		Conditions:  c.conditions.evaluate(given, request),
		Validations: c.validations.evaluate(given, request),
		Messages:    c.messages.evaluate(given, request),
		Annotations: c.annotations.evaluate(given, request),
		Total:       total,
	}
}

func main() {
	decoder := json.NewDecoder(bufio.NewReader(os.Stdin))
	encoder := json.NewEncoder(os.Stdout)
	var policies []compiled
	for {
		var one input
		err := decoder.Decode(&one)
		if err == io.EOF {
			return
		}
		check(err)
		for _, policy := range one.Policies {
			policies = append(policies, compile(policy))
		}
		if one.Request == nil {
			continue
		}
		given := attributes(one.Request)
		found := []judged{}
		for i := range policies {
			if matches(policies[i].policy, given) {
				found = append(found, policies[i].judge(given))
			}
		}
		check(encoder.Encode(found))
	}
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}
