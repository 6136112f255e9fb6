//! Pods by what a cgroup says: container ids and uids. In: pods. Out: the pod of a place. Bounded.

use super::pod::Pod;
use crate::place::Place;
use std::collections::HashMap;
use std::sync::Arc;

/// Kubelets run 110 pods unless told otherwise, the largest known setups 500.
const MOST_PODS: usize = 1024;

#[derive(Debug, Default, PartialEq)]
pub struct Index {
    /// By the API server's uid.
    pods: HashMap<String, Arc<Pod>>,
    /// By everything else: ids of containers, and the uid that a static pod has on its node.
    others: HashMap<String, Arc<Pod>>,
    beyond: u64,
}

impl Index {
    /// Takes a pod in, in place of what was known of it; whether that makes a difference.
    pub fn apply(&mut self, pod: Pod) -> bool {
        let known = self.pods.get(&pod.uid);
        if known.is_some_and(|known| **known == pod) {
            return false;
        }
        if known.is_none() && self.pods.len() >= MOST_PODS {
            self.beyond += 1;
            return false;
        }
        self.remove(&pod.uid);
        let pod = Arc::new(pod);
        for key in keys(&pod) {
            self.others.insert(key.to_owned(), Arc::clone(&pod));
        }
        self.pods.insert(pod.uid.clone(), pod);
        true
    }

    /// Lets go of a pod; whether it was there.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.remove(uid) else { return false };
        for key in keys(&pod) {
            // Another pod may have taken the key over: a static pod that was made anew.
            if self.others.get(key).is_some_and(|other| other.uid == uid) {
                self.others.remove(key);
            }
        }
        true
    }

    pub fn find(&self, place: &Place) -> Option<Arc<Pod>> {
        let containers = place.containers.iter().rev().map(|container| container.id.as_str());
        let uid = place.pod.as_ref().map(|pod| pod.uid.as_str());
        let found = containers.chain(uid).find_map(|key| self.others.get(key).or_else(|| self.pods.get(key)));
        found.cloned()
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

impl FromIterator<Pod> for Index {
    fn from_iter<I: IntoIterator<Item = Pod>>(pods: I) -> Self {
        let mut index = Self::default();
        for pod in pods {
            index.apply(pod);
        }
        index
    }
}

fn keys(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.containers.keys().chain(&pod.static_uid).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::pod::Container;
    use crate::place::{self, PodRef};

    fn pod(uid: &str, ids: &[&str], static_uid: Option<&str>) -> Pod {
        let containers = ids.iter().map(|id| ((*id).to_owned(), Container::default())).collect();
        Pod { uid: uid.to_owned(), containers, static_uid: static_uid.map(str::to_owned), ..Pod::default() }
    }

    fn place(ids: &[&str], uid: Option<&str>) -> Place {
        let containers = ids.iter().map(|id| place::Container { id: (*id).to_owned(), ..Default::default() });
        let pod = uid.map(|uid| PodRef { uid: uid.to_owned(), qos: None });
        Place { containers: containers.collect(), pod, ..Place::default() }
    }

    fn found(index: &Index, ids: &[&str], uid: Option<&str>) -> Option<String> {
        Some(index.find(&place(ids, uid))?.uid.clone())
    }

    #[test]
    fn by_the_innermost_container_then_further_out_then_by_uid() {
        let index: Index = [pod("u1", &["a"], None), pod("u2", &["b"], Some("hash"))].into_iter().collect();
        for (ids, uid, expected) in [
            (&["a"][..], None, Some("u1")),
            (&["a", "b"], None, Some("u2")),
            // Docker in a pod: the pod knows the outer container only.
            (&["a", "x"], Some("u1"), Some("u1")),
            // A container that has just been started is not in the status yet.
            (&["x"], Some("u2"), Some("u2")),
            (&["x"], Some("hash"), Some("u2")),
            (&["x"], Some("u3"), None),
            (&[], None, None),
        ] {
            assert_eq!(found(&index, ids, uid).as_deref(), expected, "{ids:?} {uid:?}");
        }
    }

    #[test]
    fn keys_go_with_their_pod() {
        let mut index = Index::default();
        assert!(index.apply(pod("u1", &["a"], Some("hash"))));
        assert!(!index.apply(pod("u1", &["a"], Some("hash"))), "nothing new");
        assert!(index.apply(pod("u1", &["b"], Some("hash"))), "the container was started anew");
        assert_eq!((found(&index, &["a"], None), found(&index, &["b"], None)), (None, Some("u1".to_owned())));
        // Made anew, the static pod has another uid and the same hash; the old one goes afterwards.
        assert!(index.apply(pod("u2", &["c"], Some("hash"))));
        assert!(index.remove("u1") && !index.remove("u1"));
        assert_eq!(found(&index, &[], Some("hash")).as_deref(), Some("u2"));
        assert!(index.remove("u2"));
        assert_eq!(index, Index::default());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut index: Index = (0..MOST_PODS).map(|n| pod(&n.to_string(), &[], None)).collect();
        assert!(!index.apply(pod("new", &["a"], None)));
        assert_eq!((index.len(), index.beyond(), found(&index, &["a"], None)), (MOST_PODS, 1, None));
        assert!(index.apply(pod("0", &["b"], None)), "what is known is renewed");
    }
}
